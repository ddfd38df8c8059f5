"""Writes the split of a store, shard by shard, in a way that can be taken up again after a kill.

What a shard holds is decided by the stream alone (always `shard_tokens` tokens, the last one
fewer), so it does not matter in what portions the tokens come. Until a store is finished, document
starts and origins grow in raw files beside the shards; `state` says how much of everything is
valid, and a writer that resumes from it cuts off what lies beyond.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from typing import Any, BinaryIO

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from lmjax.data import files as files_lib
from lmjax.data.store import ORIGIN_DTYPE, TOKENIZER, file_entry
from lmjax.errors import UserError

_EMPTY = {"num_tokens": 0, "num_documents": 0, "num_bytes": 0, "shards": []}
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
        resume: tuple[dict[str, Any], np.ndarray] | None = None,
    ) -> None:
        """`shard_tokens` is a multiple of `block_size`, `dtype` that of the tokens on disk.

        `resume` is what `state` gave: the writer goes on from there, else it starts afresh.
        """
        state, pending = resume or (_EMPTY, np.zeros(0, dtype))
        self.folder, self.split = folder, split
        self.num_tokens: int = state["num_tokens"]
        self.num_documents: int = state["num_documents"]
        self.num_bytes: int = state["num_bytes"]
        self._shards: list[dict[str, Any]] = list(state["shards"])
        self._pending, self._num_pending = [pending], len(pending)
        self._dtype, self._block_size, self._shard_tokens = dtype, block_size, shard_tokens
        self._raw: dict[str, BinaryIO] = {}
        with files_lib.writing(folder):
            for name, dtype_of_index in _INDEX_DTYPES.items():
                size = self.num_documents * dtype_of_index.itemsize
                path = os.path.join(folder, _raw_name(split, name))
                self._raw[name] = open(path, "r+b" if resume else "w+b")  # noqa: SIM115
                self._raw[name].truncate(size)
                self._raw[name].seek(size)

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
            self._raw["starts"].write(starts.astype(_INDEX_DTYPES["starts"]).tobytes())
            self._raw["origin"].write(origin.tobytes())
        self.num_tokens += len(tokens)
        self.num_documents += len(lengths)
        self.num_bytes += size
        self._pending.append(tokens)
        self._num_pending += len(tokens)
        completed = self._num_pending >= self._shard_tokens
        while self._num_pending >= self._shard_tokens:
            stream = np.concatenate(self._pending)
            self._write_shard(stream[: self._shard_tokens])
            self._pending = [stream[self._shard_tokens :].copy()]
            self._num_pending -= self._shard_tokens
        return completed

    def _write_shard(self, tokens: np.ndarray) -> None:
        name = f"{self.split}-{len(self._shards):05d}.arrayrecord"
        path = os.path.join(self.folder, name)
        blocks = np.zeros((-(-len(tokens) // self._block_size), self._block_size), self._dtype)
        blocks.reshape(-1)[: len(tokens)] = tokens
        with files_lib.writing(path):
            try:
                _write_records(f"{path}.partial", blocks)
            except RuntimeError as error:  # how ArrayRecord reports a failed write
                full = "No space left" in str(error) or "quota" in str(error)
                code = errno.ENOSPC if full else errno.EIO
                raise OSError(code, os.strerror(code)) from error
            os.replace(f"{path}.partial", path)
        self._shards.append({**file_entry(self.folder, name), "num_blocks": len(blocks)})

    def state(self) -> tuple[dict[str, Any], np.ndarray]:
        """What resuming needs: a dict fit for JSON, and the tokens that are in no shard yet."""
        with files_lib.writing(self.folder):
            for raw in self._raw.values():
                raw.flush()
        counts = {k: getattr(self, k) for k in ("num_tokens", "num_documents", "num_bytes")}
        pending = np.concatenate([np.zeros(0, self._dtype), *self._pending])
        return {**counts, "shards": list(self._shards)}, pending

    def close(self) -> None:
        """Closes the index files, as they are."""
        for raw in self._raw.values():
            with contextlib.suppress(OSError):  # `state` has flushed whatever counts
                raw.close()

    def finish(self) -> dict[str, Any] | None:
        """Writes what is left; returns the split's manifest entry, None if it has no documents."""
        if not self.num_documents:
            return None
        entry, stream = self.state()
        if len(stream):
            self._write_shard(stream)
            self._pending, self._num_pending = [], 0
        entry["shards"] = self._shards
        for name, dtype in _INDEX_DTYPES.items():
            path = os.path.join(self.folder, f"{self.split}.{name}.npy")
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
            with files_lib.writing(path), open(path, "wb") as out:
                np.lib.format.write_array_header_1_0(out, header | {"shape": (self.num_documents,)})
                self._raw[name].seek(0)
                shutil.copyfileobj(self._raw[name], out, 1 << 20)
            entry[name] = file_entry(self.folder, os.path.basename(path))
        return entry


def can_resume(folder: str, split: str, state: dict[str, Any]) -> bool:
    """Whether the files that `state` speaks of are there, at least as long as it says."""
    sizes = {shard["file"]: shard["bytes"] for shard in state["shards"]}
    for name, dtype in _INDEX_DTYPES.items():
        sizes[_raw_name(split, name)] = state["num_documents"] * dtype.itemsize
    paths = {os.path.join(folder, name): size for name, size in sizes.items()}
    return all(os.path.isfile(p) and os.path.getsize(p) >= size for p, size in paths.items())


def _raw_name(split: str, name: str) -> str:
    return f"{split}.{name}.raw"


def _write_records(path: str, blocks: np.ndarray) -> None:
    writer = ArrayRecordWriter(path, "group_size:1")
    for block in blocks:
        writer.write(block.tobytes())
    writer.close()
    reader = ArrayRecordReader(path)
    written = reader.num_records()
    reader.close()
    if written != len(blocks):
        raise OSError(f"{written} of {len(blocks)} records arrived")


_OURS = re.compile(
    r"(?:train|eval)(?:-\d+\.arrayrecord|\.(?:starts|origin)\.(?:raw|npy))(?:\.partial)?"
    r"|progress\.npz(?:\.partial)?|manifest\.json\.partial|tokenizer"
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
    kept = {TOKENIZER}
    for entry in keep.get("splits", {}).values():
        kept |= {f["file"] for f in (*entry["shards"], entry["starts"], entry["origin"])}
    with files_lib.writing(output):
        for name in os.listdir(output):
            if _OURS.fullmatch(name) and name not in kept:
                os.remove(os.path.join(output, name))
