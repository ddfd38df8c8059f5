"""Folders of safetensors files: named tensors, one file or several with an index.

Reading goes through the `safetensors` library, which maps a file and checks its header against its
length, so that no claim is larger than the file; names that stand there twice are refused here.
Writing is ours, tensor by tensor, because the library wants all tensors of a file at once:
a file is the length of its header (8 bytes, little-endian), the header (JSON: type, shape and place
of each tensor), then the tensors (huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from lmjax import confine, paths
from lmjax.errors import UserError, reason

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_SHARD_BYTES = 5 * 10**9
_MAX_HEADER_BYTES = 32 << 20  # 100,000 tensors have some 12 MiB
_MAX_INDEX_BYTES = 64 << 20

DTYPES = {
    "float32": ("F32", np.dtype(np.float32)),
    "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
    "float16": ("F16", np.dtype(np.float16)),
}
_READABLE = {"F32", "BF16", "F16", "F64"}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Tensors:
    """The tensors of a folder; nothing is read before it is asked for.

    Raises (also when a tensor is read):
      UserError: no safetensors there, a file that is damaged or missing or not in that folder, a
        tensor that is there twice.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, str] = {}
        self._file_of: dict[str, Path] = {}
        self._open: dict[Path, safetensors.safe_open] = {}
        self._promised: set[str] = set()  # by an index
        for file in self._files():
            _check_header(confine.inside(self.folder, file.name))
            self._read_header(file)

    def _files(self) -> list[Path]:
        if (self.folder / INDEX).is_file():
            return self._indexed()
        if (self.folder / SINGLE).is_file():
            return [self.folder / SINGLE]
        found = sorted(self.folder.glob("*.safetensors"))
        if len(found) == 1:
            return found
        pickles = [p.name for p in sorted(self.folder.iterdir()) if p.suffix in _PICKLES]
        if pickles:
            raise UserError(
                f"{self.folder}: {pickles[0]} is a pickle, which runs whatever code it holds when "
                "it is read; save the model as safetensors (save_pretrained does) and import that"
            )
        raise UserError(
            f"{self.folder}: no weights ({SINGLE}, or shards with {INDEX}) are there; {_AGAIN}"
        )

    def _indexed(self) -> list[Path]:
        file = self.folder / INDEX
        try:
            content = paths.read_bytes(confine.inside(self.folder, INDEX), _MAX_INDEX_BYTES)
            weight_map = json.loads(content)["weight_map"]
            names = sorted(set(weight_map.values()))
            if not all(isinstance(name, str) for name in names):
                raise TypeError("weight_map names what is no file")
            is_there = lambda name: confine.is_plain(name) and (self.folder / name).is_file()
            missing = [name for name in names if not is_there(name)]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as why:
            raise UserError(f"{file}: damaged ({reason(why)}); {_AGAIN}") from None
        if missing:
            raise UserError(f"{file}: {missing[0]!r:.200}, which it names, is not there; {_AGAIN}")
        self._promised = set(weight_map)
        return [self.folder / n for n in names]

    def _read_header(self, file: Path) -> None:
        try:
            opened = self._open[file] = safetensors.safe_open(file, framework="numpy")
            for name in opened.keys():  # noqa: SIM118  it is no mapping
                entry = opened.get_slice(name)
                if name in self.shapes:
                    other = self._file_of[name].name
                    raise UserError(
                        f"{self.folder}: {name} is in both {other} and {file.name}; {_AGAIN}"
                    )
                self._file_of[name] = file
                self.shapes[name] = tuple(entry.get_shape())
                self.types[name] = entry.get_dtype()
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(
                f"{file}: damaged or cut short ({' '.join(str(error).split())}); {_AGAIN}"
            ) from None

    def lost(self) -> list[str]:
        """Names that the index promises and no file has."""
        return sorted(self._promised - set(self.shapes))

    def check_types(self, names: Iterable[str]) -> None:
        """Raises UserError on a tensor whose numbers are of a kind that is no weight here."""
        for name in names:
            if (kind := self.types[name]) not in _READABLE:
                raise UserError(
                    f"{self._file_of[name]}: {name} holds {kind} numbers; weights in "
                    "float32, bfloat16 or float16 are read (quantised ones are not); give those"
                )

    def __call__(self, name: str) -> np.ndarray:
        """One tensor, as it is stored."""
        self.check_types([name])
        try:
            return self._open[self._file_of[name]].get_tensor(name)
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{self._file_of[name]}: {name}: {error}; {_AGAIN}") from None

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors are the same, bit for bit."""
        if self.shapes[one] != self.shapes[other] or self.types[one] != self.types[other]:
            return False
        a, b = self(one), self(other)
        return np.array_equal(a.view(np.uint8), b.view(np.uint8))


_AGAIN = "copy or download the folder again"


def _check_header(file: Path) -> None:
    """Raises UserError if a header is longer than any, or names a tensor twice.

    Readers of the format take the first or the last of two, so that one shows another model than
    the other.
    """
    try:
        with open(file, "rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > _MAX_HEADER_BYTES:
                raise ValueError(f"a header of {size:,} bytes")
            json.loads(stream.read(size), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{file}: damaged or cut short ({reason(error)}); {_AGAIN}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        count = Counter(name for name, _ in pairs)
        raise ValueError(f"{count.most_common(1)[0][0]!r:.200} is there twice")
    return found


@dataclass(frozen=True)
class Tensor:
    """One to write: its name and shape, and what makes it when its turn comes."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]

    def nbytes(self, dtype: np.dtype) -> int:
        """Bytes in a file."""
        return math.prod(self.shape) * dtype.itemsize


def write(
    folder: str | os.PathLike,
    tensors: Sequence[Tensor],
    *,
    dtype: str = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_tensor: Callable[[int], None] = lambda nbytes: None,
) -> list[str]:
    """Writes tensors as `SINGLE`, or as shards with `INDEX`; never holds more than one of them.

    Args:
      folder: an existing one.
      tensors: in the order of the files.
      dtype: key of `DTYPES`.
      max_shard_bytes: a file is no larger, unless a single tensor is.
      on_tensor: told the bytes of each tensor once it is written.

    Returns:
      Names of the files.
    """
    _, numpy_type = DTYPES[dtype]
    shards: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        size = tensor.nbytes(numpy_type)
        if not shards or size > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(tensor)
        room -= size
    number = len(shards)
    names = [SINGLE] if number == 1 else list(_shard_names(number))
    for name, shard in zip(names, shards, strict=True):
        write_file(Path(folder) / name, shard, dtype=dtype, on_tensor=on_tensor)
    if number == 1:
        return names
    total = sum(tensor.nbytes(numpy_type) for tensor in tensors)
    weight_map = {t.name: name for name, shard in zip(names, shards, strict=True) for t in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (Path(folder) / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return [*names, INDEX]


def _shard_names(number: int) -> Iterator[str]:
    return (f"model-{i:05d}-of-{number:05d}.safetensors" for i in range(1, number + 1))


def write_file(
    file: Path,
    tensors: Sequence[Tensor],
    *,
    dtype: str = "float32",
    on_tensor: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Writes tensors to one file, each when its turn comes."""
    kind, numpy_type = DTYPES[dtype]
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in tensors:
        end = start + tensor.nbytes(numpy_type)
        header[tensor.name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8, as the format asks
    with open(file, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            array = tensor.make()
            if array.shape != tensor.shape:
                raise ValueError(f"{tensor.name} is {array.shape}, {tensor.shape} was announced")
            np.ascontiguousarray(array, dtype=numpy_type).tofile(out)
            del array  # before the next one is made
            on_tensor(tensor.nbytes(numpy_type))
