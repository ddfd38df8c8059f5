"""Columns of a store in .npy files: mapped, never unpickled, of the type and length they need."""

from __future__ import annotations

import os

import numpy as np

from lmjax.errors import UserError, reason


def mapped(file: str | os.PathLike, dtype: np.dtype, length: int, fix: str) -> np.memmap:
    """The array of a file, `dtype` [length], mapped for reading.

    Raises:
      UserError: it cannot be read, holds Python objects or is of another type or shape; `fix` says
        what to do about it.
    """
    file = os.fspath(file)
    try:
        with open(file, "rb") as stream:
            if np.lib.format.read_magic(stream) != (1, 0):  # names of columns in other alphabets
                raise ValueError("not of version 1.0")
            shape, _, found = np.lib.format.read_array_header_1_0(stream)
            offset = stream.tell()
        if shape == (length,) and found == dtype:
            return np.memmap(file, dtype, "r", offset, shape)
    except Exception as error:  # headers are Python, whose parsers have many ways to fail
        raise UserError(f"{file}: damaged ({reason(error)}); {fix}") from None
    raise UserError(
        f"{file}: not one entry for each document ({found} {shape}, not {dtype} {(length,)}); {fix}"
    )
