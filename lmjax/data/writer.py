"""Writes the split of a store, shard by shard, in a way that can be taken up again after a kill.

What a shard holds is decided by the stream alone (always `shard_tokens` tokens, the last one
fewer), so it does not matter in what portions the tokens come. Until a store is finished, document
starts and origins grow in raw files beside the shards, and so do the tokens of the next shard;
`state` says how much of everything is valid, and a writer that resumes from it cuts off what lies
beyond. So memory and state are small, whatever the size of a shard.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import zlib
from typing import Any, BinaryIO

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from lmjax.data import files as files_lib
from lmjax.data.store import LEDGER, ORIGIN_DTYPE, TOKENIZER, ends_crc32, file_entry
from lmjax.errors import UserError

_EMPTY = {"num_tokens": 0, "num_documents": 0, "num_bytes": 0, "shards": [], "pending_crc32": 0}
# One record per chunk, for random access. Zstandard would save 27 % of the bytes of English at 32k
# ids; it makes reading up to 2 times slower and writing 9 times.
RECORD_OPTIONS = "group_size:1,uncompressed"
_BYTES_AT_ONCE = 1 << 20
_INDEX_DTYPES = {"starts": np.dtype("<u8"), "origin": ORIGIN_DTYPE}


class SplitWriter:
    """Appends documents to one split of the store in `folder`."""

    def __init__(
        self,
        folder: str,
        split: str,
        dtype: np.dtype,
        block_size: int,
        shard_tokens: int,
        resume: dict[str, Any] | None = None,
    ) -> None:
        """`shard_tokens` is a multiple of `block_size`, `dtype` that of the tokens on disk.

        `resume` is what `state` gave: the writer goes on from there, else it starts afresh.
        """
        state = resume or _EMPTY
        self.folder, self.split = folder, split
        self.num_tokens: int = state["num_tokens"]
        self.num_documents: int = state["num_documents"]
        self.num_bytes: int = state["num_bytes"]
        self._shards: list[dict[str, Any]] = list(state["shards"])
        self._dtype, self._block_size, self._shard_tokens = dtype, block_size, shard_tokens
        self._num_pending = self.num_tokens - len(self._shards) * shard_tokens
        self._pending_crc32: int = state["pending_crc32"]
        self._outdated: list[str] = []
        sizes = {_tokens_name(split, len(self._shards)): self._num_pending * dtype.itemsize}
        sizes |= _index_sizes(split, self.num_documents)
        with files_lib.writing(folder):
            raw = [self._open_raw(name, resume is not None, sizes[name]) for name in sizes]
        self._tokens, *indexes = raw
        self._indexes: dict[str, BinaryIO] = dict(zip(_INDEX_DTYPES, indexes, strict=True))

    def _open_raw(self, name: str, resume: bool = False, size: int = 0) -> BinaryIO:
        raw = open(os.path.join(self.folder, name), "r+b" if resume else "w+b")  # noqa: SIM115
        raw.truncate(size)
        raw.seek(size)
        return raw

    def add(self, tokens: np.ndarray, lengths: np.ndarray, origin: np.ndarray, size: int) -> bool:
        """Appends documents; says whether that completed a shard.

        Args:
          tokens: their ids in a row, end tokens included, dtype as on disk [sum of lengths].
          lengths: tokens of each document, [documents].
          origin: `ORIGIN_DTYPE` [documents].
          size: UTF-8 bytes of their text.
        """
        starts = self.num_tokens + np.cumsum(lengths) - lengths
        with files_lib.writing(self.folder):
            self._indexes["starts"].write(starts.astype(_INDEX_DTYPES["starts"]).tobytes())
            self._indexes["origin"].write(origin.tobytes())
        self.num_tokens += len(tokens)
        self.num_documents += len(lengths)
        self.num_bytes += size
        before = len(self._shards)
        while len(tokens):
            fitting = tokens[: self._shard_tokens - self._num_pending]
            with files_lib.writing(self.folder):
                self._tokens.write(data := fitting.tobytes())
            self._pending_crc32 = zlib.crc32(data, self._pending_crc32)
            self._num_pending += len(fitting)
            tokens = tokens[len(fitting) :]
            if self._num_pending == self._shard_tokens:
                self._complete_shard()
        return len(self._shards) > before

    def _complete_shard(self) -> None:
        name = f"{self.split}-{len(self._shards):05d}.arrayrecord"
        path = os.path.join(self.folder, name)
        num_blocks = -(-self._num_pending // self._block_size)
        with files_lib.writing(path):
            try:
                self._tokens.seek(0)
                ends = self._write_records(f"{path}.partial", num_blocks)
            except RuntimeError as error:  # how ArrayRecord reports a failed write
                full = "No space left" in str(error) or "quota" in str(error)
                code = errno.ENOSPC if full else errno.EIO
                raise OSError(code, os.strerror(code)) from error
            os.replace(f"{path}.partial", path)
            self._tokens.close()
            self._outdated.append(self._tokens.name)  # but a journal may still count on it
            entry = {"num_blocks": num_blocks, "ends_crc32": ends}
            self._shards.append(file_entry(self.folder, name) | entry)
            self._tokens = self._open_raw(_tokens_name(self.split, len(self._shards)))
            self._num_pending = self._pending_crc32 = 0

    def _write_records(self, path: str, num_blocks: int) -> int:
        """Writes all of `_tokens`, the last block filled up with pad; returns `ends_crc32`."""
        record_size = self._block_size * self._dtype.itemsize
        writer = ArrayRecordWriter(path, RECORD_OPTIONS)
        first = last = b""
        while record := self._tokens.read(record_size):
            last = record.ljust(record_size, b"\0")
            first = first or last
            writer.write(last)
        writer.close()
        reader = ArrayRecordReader(path)
        written = reader.num_records()
        reader.close()
        if written != num_blocks:
            raise OSError(f"{written} of {num_blocks} records arrived")
        return ends_crc32(first, last)

    def state(self) -> dict[str, Any]:
        """What resuming needs, fit for JSON; what it counts on has left this process."""
        with files_lib.writing(self.folder):
            for raw in (self._tokens, *self._indexes.values()):
                raw.flush()
        return {**self._entry(), "pending_crc32": self._pending_crc32}

    def _entry(self) -> dict[str, Any]:
        counts = {k: getattr(self, k) for k in ("num_tokens", "num_documents", "num_bytes")}
        return {**counts, "shards": list(self._shards)}

    def forget(self) -> None:
        """Deletes what only a state before the last one needs."""
        with files_lib.writing(self.folder):
            for path in self._outdated:
                os.remove(path)
        self._outdated.clear()

    def close(self) -> None:
        """Closes the raw files, as they are."""
        for raw in (self._tokens, *self._indexes.values()):
            with contextlib.suppress(OSError):  # `state` has flushed whatever counts
                raw.close()

    def finish(self) -> dict[str, Any] | None:
        """Writes what is left; returns the split's manifest entry, None if it has no documents."""
        if not self.num_documents:
            return None
        if self._num_pending:
            self._complete_shard()
        entry = self._entry()
        for name, dtype in _INDEX_DTYPES.items():
            path = os.path.join(self.folder, f"{self.split}.{name}.npy")
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
            with files_lib.writing(path), open(path, "wb") as out:
                np.lib.format.write_array_header_1_0(out, header | {"shape": (self.num_documents,)})
                self._indexes[name].seek(0)
                shutil.copyfileobj(self._indexes[name], out, _BYTES_AT_ONCE)
            entry[name] = file_entry(self.folder, os.path.basename(path))
        return entry


def can_resume(
    folder: str, split: str, state: dict[str, Any], dtype: np.dtype, shard_tokens: int
) -> bool:
    """Whether the files that `state` speaks of are there, at least as long as it says.

    Tokens that are in no shard yet are read again: they are what a power cut would take first.
    """
    shards = state["shards"]
    pending = state["num_tokens"] - len(shards) * shard_tokens
    sizes = {shard["file"]: shard["bytes"] for shard in shards}
    sizes[_tokens_name(split, len(shards))] = pending * dtype.itemsize
    sizes |= _index_sizes(split, state["num_documents"])
    paths = {os.path.join(folder, name): size for name, size in sizes.items()}
    if not all(os.path.isfile(p) and os.path.getsize(p) >= size for p, size in paths.items()):
        return False
    tokens = os.path.join(folder, _tokens_name(split, len(shards)))
    return _crc32(tokens, pending * dtype.itemsize) == state["pending_crc32"]


def _crc32(path: str, size: int) -> int:
    crc32 = 0
    with open(path, "rb") as stream:
        for begin in range(0, size, _BYTES_AT_ONCE):
            crc32 = zlib.crc32(stream.read(min(_BYTES_AT_ONCE, size - begin)), crc32)
    return crc32


def _tokens_name(split: str, shard: int) -> str:
    return f"{split}-{shard:05d}.tokens.raw"


def _index_sizes(split: str, num_documents: int) -> dict[str, int]:
    return {f"{split}.{k}.raw": num_documents * d.itemsize for k, d in _INDEX_DTYPES.items()}


_OURS = re.compile(
    r"(?:train|eval)(?:-\d+\.(?:arrayrecord|tokens\.raw)|\.(?:starts|origin)\.(?:raw|npy))"
    r"(?:\.partial)?|progress\.(?:json|npz)(?:\.partial)?|(?:manifest|ledger)\.json\.partial|tokenizer|"
    r"ledger\.json"
)


def check_ours(output: str) -> None:
    """Raises UserError if the folder holds anything that no unfinished store has."""
    foreign = [name for name in sorted(os.listdir(output)) if not _OURS.fullmatch(name)]
    if foreign:
        raise UserError(
            f"{output}: holds other files ({', '.join(foreign[:3])}); choose an empty folder"
        )


def remove_leftovers(output: str, keep: dict[str, Any]) -> None:
    """Deletes what belongs to an unfinished store and not to the one whose manifest is `keep`."""
    kept = {TOKENIZER, LEDGER} if keep else {TOKENIZER}
    for entry in keep.get("splits", {}).values():
        kept |= {f["file"] for f in (*entry["shards"], entry["starts"], entry["origin"])}
    with files_lib.writing(output):
        for name in os.listdir(output):
            if _OURS.fullmatch(name) and name not in kept:
                os.remove(os.path.join(output, name))
