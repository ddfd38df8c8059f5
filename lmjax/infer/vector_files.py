"""Files of vectors, written as they come: NumPy's .npz and Parquet.

An .npz has `vectors` float32 [N, D] and `ids` [N]: the lines' own field `id` where every line has
one, all integers or all text, else the numbers of the lines. Of token vectors it has `vectors`
[M, D], one under the other, `token_ids` int32 [M], and `offsets` int64 [N + 1], where each line's
begin. What is written is first gathered in a temporary file, so memory does not grow with it (but
for ids). Parquet has the lines' own fields and `vector`, a list of fixed size; of token vectors
`vectors` and `token_ids`, lists.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmjax.errors import UserError
from lmjax.infer.embed import Text
from lmjax.infer.jsonl import Line

SUFFIXES = (".npz", ".parquet")


class VectorFile(Protocol):
    """Gets lines with their vectors, some at a time."""

    def add(
        self, lines: Sequence[Line], texts: Sequence[Text], vectors: Sequence[np.ndarray]
    ) -> None: ...

    def finish(self) -> None:
        """Writes what is left."""
        ...

    def close(self) -> None:
        """Lets go of everything, whether it was finished or not."""
        ...


def check_name(path: str) -> None:
    """Raises UserError unless a file's name says of which kind it is to be."""
    if not path.lower().endswith(SUFFIXES):
        raise UserError(f"{path}: of no known kind; name the output {' or '.join(SUFFIXES)}")


@contextlib.contextmanager
def writing(path: str, stream: BinaryIO, *, width: int, tokens: bool) -> Iterator[VectorFile]:
    """Yields what gets the lines; all is in `stream` when the block ends without an error.

    Args:
      path: whose name says of which kind it is.
      stream: gets the bytes.
      width: of a vector, D.
      tokens: whether each line has several.
    """
    kind = ParquetFile if path.lower().endswith(".parquet") else NpzFile
    file = kind(stream, width=width, tokens=tokens)
    try:
        yield file
        file.finish()
    finally:
        file.close()


class _Spool:
    """Rows of an array in a temporary file."""

    def __init__(self, dtype: type, *width: int):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  `close` closes it
        self._dtype, self._width, self._count = np.dtype(dtype), width, 0

    def add(self, rows: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self._count += len(rows)

    @property
    def array(self) -> np.ndarray:
        """All rows, read from the disk where they are looked at."""
        self._file.flush()
        shape = (self._count, *self._width)
        if not self._count:
            return np.zeros(shape, self._dtype)
        return np.memmap(self._file, self._dtype, "r", shape=shape)

    def write(self, archive: zipfile.ZipFile, name: str) -> None:
        shape = (self._count, *self._width)
        self._file.seek(0)
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            said = np.lib.format.dtype_to_descr(self._dtype)
            header = {"descr": said, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            shutil.copyfileobj(self._file, member, 1 << 20)

    def close(self) -> None:
        self._file.close()


class NpzFile:
    """An .npz, which `numpy.load` reads."""

    def __init__(self, stream: BinaryIO, *, width: int, tokens: bool):
        """`width`: D; `tokens`: whether each line has several vectors."""
        self._stream, self._tokens = stream, tokens
        self._vectors, self._token_ids = _Spool(np.float32, width), _Spool(np.int32)
        self._offsets, self._ids, self._numbers = [0], [], []
        self._more: dict[str, np.ndarray] = {}

    @property
    def vectors(self) -> np.ndarray:
        """Those of all lines so far, on disk."""
        return self._vectors.array

    def put(self, name: str, array: np.ndarray) -> None:
        """Adds an array of another name."""
        self._more[name] = array

    def add(
        self, lines: Sequence[Line], texts: Sequence[Text], vectors: Sequence[np.ndarray]
    ) -> None:
        """Adds lines."""
        for line, text, found in zip(lines, texts, vectors, strict=True):
            self._vectors.add(found if self._tokens else found[None])
            if self._tokens:
                self._token_ids.add(text.ids[text.is_text])
                self._offsets.append(self._offsets[-1] + len(found))
            self._ids.append(line.record.get("id"))
            self._numbers.append(int(line.place.rsplit(":", 1)[1]))

    def finish(self) -> None:
        """Writes all of it."""
        with zipfile.ZipFile(self._stream, "w") as archive:
            self._vectors.write(archive, "vectors")
            if self._tokens:
                self._token_ids.write(archive, "token_ids")
                self._more["offsets"] = np.array(self._offsets, np.int64)
            for name, array in ({"ids": _ids(self._ids, self._numbers)} | self._more).items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    def close(self) -> None:
        """Deletes the temporary files."""
        self._vectors.close()
        self._token_ids.close()


def _ids(given: list[Any], numbers: list[int]) -> np.ndarray:
    kinds = {type(one) for one in given}
    if kinds == {int} and all(-(2**63) <= one < 2**63 for one in given):
        return np.array(given, np.int64)
    return np.array(given if kinds == {str} else numbers, str if kinds == {str} else np.int64)


class ParquetFile:
    """A Parquet file; its columns are those of the first lines."""

    def __init__(self, stream: BinaryIO, *, width: int, tokens: bool):
        """`width`: D; `tokens`: whether each line has several vectors."""
        self._stream, self._writer = stream, None
        self._vector = pa.list_(pa.float32(), width)
        self._tokens = tokens

    def add(
        self, lines: Sequence[Line], texts: Sequence[Text], vectors: Sequence[np.ndarray]
    ) -> None:
        """Adds lines.

        Raises:
          UserError: their fields are none that one table could hold.
        """
        own = self._own(lines)
        own |= self._several(texts, vectors) if self._tokens else {"vector": self._flat(vectors)}
        table = pa.table(own)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._stream, table.schema)
        self._writer.write_table(table)

    def _own(self, lines: Sequence[Line]) -> dict[str, pa.Array]:
        """The lines' fields, in the types of the first lines'."""
        new = {"vectors", "token_ids"} if self._tokens else {"vector"}
        names = dict.fromkeys(key for line in lines for key in line.record if key not in new)
        if self._writer is not None:
            known = [name for name in self._writer.schema.names if name not in new]
            for line in lines:
                if more := [key for key in line.record if key not in {*known, *new}]:
                    raise _no_table(line.place, f"field {more[0]} is not in the first lines")
            names = dict.fromkeys(known)
        columns = {}
        for name in names:
            kind = None if self._writer is None else self._writer.schema.field(name).type
            try:
                column = pa.array([line.record.get(name) for line in lines], kind)
            except (pa.ArrowException, UnicodeError, OverflowError) as error:
                why = f"field {name} has values of several kinds ({str(error).splitlines()[0]})"
                raise _no_table(lines[0].place, why) from None
            columns[name] = column.cast(pa.string()) if pa.types.is_null(column.type) else column
        return columns

    def _flat(self, vectors: Sequence[np.ndarray]) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(np.concatenate(vectors), type=self._vector)

    def _several(self, texts: Sequence[Text], vectors: Sequence[np.ndarray]) -> dict[str, pa.Array]:
        offsets = pa.array(np.cumsum([0, *map(len, vectors)]), pa.int32())
        ids = np.concatenate([text.ids[text.is_text] for text in texts])
        return {
            "token_ids": pa.ListArray.from_arrays(offsets, pa.array(ids, pa.int32())),
            "vectors": pa.ListArray.from_arrays(offsets, self._flat([v.ravel() for v in vectors])),
        }

    def finish(self) -> None:
        """Writes what is left."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._stream, pa.schema([("vector", self._vector)]))
        self._writer.close()

    def close(self) -> None:
        """Ends the writer."""
        if self._writer is not None:
            with contextlib.suppress(Exception):  # whatever it was, it has been raised before
                self._writer.close()


def _no_table(place: str, why: str) -> UserError:
    return UserError(f"{place}: {why}, which no table can hold; name the output .npz")
