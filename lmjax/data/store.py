"""The token store: tokenised documents on disk, read at random by position in the stream.

A store is a folder that says all about itself:

  manifest.json            counts, sizes and SHA-256 of every file; written last
  SPLIT-00000.arrayrecord  the stream of tokens in records of `block_size` (the last one filled up
                           with pad), uint16 or uint32, little-endian
  SPLIT.starts.npy         uint64 [documents], where each document starts in the stream
  SPLIT.origin.npy         (file uint32, record uint64) [documents], where its text came from
  tokenizer/               the tokenizer of the ids

SPLIT is "train" or "eval". Every document ends with the end token.

What is read is what was written, or an error: ArrayRecord checks its chunks by hash; that a shard
is the one that the manifest means, and not a file of the same name and size, is seen by a checksum
of its ends when it is first read; index files are compared with their SHA-256 up to 64 MiB, and the
manifest has a checksum of itself. In larger index files a flipped bit is for
`tools/prepare_data.py --verify` to find.

Dimension key: B windows, L tokens of a window.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.data import manifest as manifest_lib
from lmjax.data import npy
from lmjax.data.document_index import DocumentIndex
from lmjax.data.shard_readers import ShardReaders
from lmjax.errors import UserError, reason

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"
LEDGER = "ledger.json"  # of the curation that the text is from; not every store has one
ORIGIN_DTYPE = np.dtype([("file", "<u4"), ("record", "<u8")])
_HASHED_BYTES = 1 << 26  # index files up to this are checked whole: 0.1 s
_MAX_TOKENS_AT_ONCE = 1 << 22  # of blocks in memory while windows are cut from them
REBUILD = "copy the store again, or delete it and prepare it anew"


def is_store(path: str | os.PathLike) -> bool:
    """Whether `path` is the folder of a finished store."""
    return os.path.isfile(os.path.join(os.path.expanduser(path), MANIFEST))


def read_manifest(path: str | os.PathLike) -> tuple[dict[str, Any], str]:
    """(manifest, its SHA-256) of the store in folder `path`.

    Raises:
      UserError: there is none, it is damaged or of an unknown format.
    """
    file = os.path.join(os.path.expanduser(path), MANIFEST)
    if not os.path.isfile(file):
        raise UserError(
            f"{path}: not a prepared store ({MANIFEST} is missing); "
            "run tools/prepare_data.py to its end"
        )
    return parse_manifest(paths.read_bytes(file, manifest_lib.MAX_BYTES) or b"", file)


def parse_manifest(content: bytes, file: str) -> tuple[dict[str, Any], str]:
    """(manifest, its SHA-256) from the bytes of `file`.

    Raises:
      UserError: it is damaged, of an unknown format, or names files outside of its folder.
    """
    try:
        manifest = json.loads(content)
        version = manifest["format"]
        if version == manifest_lib.FORMAT:
            manifest_lib.check(manifest)
    except manifest_lib.OutsideError as error:
        raise UserError(f"{file}: names files elsewhere ({error}); do not use it") from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: damaged ({reason(error)}); {REBUILD}") from error
    if version != manifest_lib.FORMAT:
        raise UserError(f"{file}: format {version} is unknown here; update lmjax or {REBUILD}")
    return manifest, hashlib.sha256(content).hexdigest()


def file_entry(folder: str, file: str) -> dict[str, Any]:
    """What the manifest says of a file: name, size in bytes, SHA-256."""
    path = os.path.join(folder, file)
    return {"file": file, "bytes": os.path.getsize(path), "sha256": files_lib.sha256(path)}


def ends_crc32(first: bytes, last: bytes) -> int:
    """By what the manifest knows a shard again: its first record and its last."""
    return zlib.crc32(last, zlib.crc32(first))


class Store:
    """One split of a store, opened for reading. Threads may share it; it pickles by its path."""

    def __init__(self, path: str, split: str, manifest: dict[str, Any], sha256: str) -> None:
        """Use `Store.open`."""
        self.path, self.split = path, split
        self.manifest, self.manifest_sha256 = manifest, sha256
        self.entry = manifest["splits"][split]
        self.num_tokens: int = self.entry["num_tokens"]
        self.num_documents: int = self.entry["num_documents"]
        self.num_bytes: int = self.entry["num_bytes"]
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.tokenizer_path = os.path.join(path, TOKENIZER)
        self.block_size: int = manifest["block_size"]
        self.dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        sizes = [shard["num_blocks"] for shard in self.entry["shards"]]
        self._first_blocks = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._readers = ShardReaders()
        self._known: set[int] = set()  # shards that are those of the manifest

    @classmethod
    def open(cls, path: str | os.PathLike, split: str) -> Store:
        """Opens a split after checking that all its files are there in their full size.

        Raises:
          UserError: no such store or split, or a file is missing or truncated; names it.
        """
        path = os.path.abspath(os.path.expanduser(path))
        manifest, sha256 = read_manifest(path)
        if split not in manifest["splits"]:
            is_one = sum(entry["num_documents"] for entry in manifest["splits"].values()) == 1
            why = " (all its text is one document)" * is_one
            or_else = ", or set text_split=paragraph" * is_one
            raise UserError(
                f"{path}: no {split!r} split, only {', '.join(manifest['splits'])}{why}; "
                f"prepare it with eval_fraction above 0 or give data.eval_path{or_else}"
            )
        for entry in split_files(manifest["splits"][split]):
            _check_size(path, entry)
        return cls(path, split, manifest, sha256)

    def __reduce__(self) -> tuple:
        return Store, (self.path, self.split, self.manifest, self.manifest_sha256)

    def read(self, start_B: np.ndarray, length: int) -> np.ndarray:
        """Tokens [start, start + length) of the stream for each start; pad 0 beyond its end.

        Args:
          start_B: positions in the stream, integers >= 0.
          length: L, at least 1.

        Returns:
          int32 [B, L].

        Raises:
          UserError: a record is corrupt, or a shard is another one; names them.
        """
        start_B, size = _positions(start_B), self.block_size
        blocks_per_window = (length - 2) // size + 2
        rows = max(1, _MAX_TOKENS_AT_ONCE // (blocks_per_window * size))
        if len(start_B) > rows:
            parts = np.split(start_B, range(rows, len(start_B), rows))
            return np.concatenate([self.read(part, length) for part in parts])
        end_B = np.minimum(start_B + length, self.num_tokens)
        first_B, stop_B = start_B // size, -(-end_B // size)
        touched = first_B[:, None] + np.arange(blocks_per_window)
        blocks = np.unique(touched[touched < stop_B[:, None]])
        # Blocks of one window are neighbours in `blocks`, so every window is a slice of `stream`.
        stream = np.zeros(len(blocks) * size + length + size, self.dtype)
        self._read_blocks(blocks, stream)
        offset_B = np.searchsorted(blocks, first_B) * size + start_B % size
        return np.lib.stride_tricks.sliding_window_view(stream, length)[offset_B].astype(np.int32)

    def documents_at(self, start_B: np.ndarray, length: int) -> np.ndarray:
        """Index of the document that each token of the windows of `read` belongs to.

        Returns:
          int64 [B, L]; -1 beyond the end of the stream.
        """
        start_B = _positions(start_B)
        end_B = np.minimum(start_B + length, self.num_tokens)
        first_B, num_B, starts_N = self._index.find(start_B, end_B)
        row = np.repeat(np.arange(len(start_B)), num_B)
        column = starts_N - start_B[row]
        if ((column < 0) | (column >= length)).any():
            raise self._index.out_of_order()
        documents_BL = np.zeros((len(start_B), length), np.int64)
        documents_BL[:, 0] = first_B
        documents_BL[row, column] = 1
        np.cumsum(documents_BL, axis=1, out=documents_BL)
        documents_BL[start_B[:, None] + np.arange(length) >= self.num_tokens] = -1
        return documents_BL

    def bounds(self, first: int, stop: int) -> np.ndarray:
        """Where documents first ... stop - 1 start, and where the last ends, int64 [n + 1]."""
        starts = self._index.starts(first, stop + 1)
        return starts if stop < self.num_documents else np.append(starts, self.num_tokens)

    def documents_of(self, position_N: np.ndarray) -> np.ndarray:
        """Index of the document that each position of the stream is in, int64 [N]."""
        position_N = np.asarray(position_N, np.int64)
        return self._index.find(position_N, position_N)[0]

    def origin(self, document: int) -> tuple[str, int]:
        """(input file, record in it) of a document; lines, rows and paragraphs count from 0.

        Raises:
          UserError: the index of origins is damaged.
        """
        (file, record), inputs = self._origin[document], self.manifest["inputs"]
        if file >= len(inputs):
            where = os.path.join(self.path, self.entry["origin"]["file"])
            raise UserError(f"{where}: names an input file that there is not; {REBUILD}")
        return inputs[file]["name"], int(record)

    @property
    def token_bytes(self) -> int:
        """Bytes of a token on disk."""
        return self.dtype.itemsize

    @cached_property
    def _index(self) -> DocumentIndex:
        return DocumentIndex(self._hashed("starts"), self.num_documents, self.num_tokens)

    @cached_property
    def _origin(self) -> np.ndarray:
        return npy.mapped(self._hashed("origin"), ORIGIN_DTYPE, self.num_documents, REBUILD)

    def _hashed(self, name: str) -> str:
        """The path of an index file, whose content was looked at unless it is huge."""
        entry = self.entry[name]
        file = os.path.join(self.path, entry["file"])
        if entry["bytes"] <= _HASHED_BYTES and files_lib.sha256(file) != entry["sha256"]:
            raise UserError(f"{file}: not the content its SHA-256 promises; {REBUILD}")
        return file

    def _read_blocks(self, blocks: np.ndarray, out: np.ndarray) -> None:
        """Writes the tokens of sorted blocks to the front of `out`, one read per shard."""
        size = self.block_size
        shards = np.searchsorted(self._first_blocks, blocks, side="right") - 1
        limits = [*np.flatnonzero(np.diff(shards, prepend=-1)), len(blocks)]
        for begin, end in itertools.pairwise(limits):
            self._know(shards[begin])
            first = self._first_blocks[shards[begin]]
            records = self._records(shards[begin], (blocks[begin:end] - first).tolist())
            out[begin * size : end * size] = np.frombuffer(records, self.dtype)

    def _know(self, shard: int) -> None:
        """Raises UserError, when a shard is first read, if it is another one than was written."""
        if shard in self._known:
            return
        entry = self.entry["shards"][shard]
        if (wanted := entry.get("ends_crc32")) is not None:  # which old stores have not
            ends = (self._records(shard, [i]) for i in (0, entry["num_blocks"] - 1))
            if ends_crc32(*ends) != wanted:
                file = os.path.join(self.path, entry["file"])
                raise UserError(f"{file}: not the shard that the manifest means; {REBUILD}")
        self._known.add(shard)

    def _records(self, shard: int, indices: Sequence[int]) -> bytes:
        file = os.path.join(self.path, self.entry["shards"][shard]["file"])
        try:
            data = b"".join(self._readers.read(file, indices))
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            if "Too many open files" in str(error):
                raise UserError(f"{file}: too many open files; raise `ulimit -n`") from error
            data = b""
        is_whole = len(data) == len(indices) * self.block_size * self.dtype.itemsize
        if is_whole and np.frombuffer(data, self.dtype).max() < self.vocab_size:
            return data
        if len(indices) > 1:  # find the one that is at fault
            return b"".join(self._records(shard, [index]) for index in indices)
        raise UserError(f"{file}: record {indices[0]} is corrupt; {REBUILD}")


def _positions(start_B: np.ndarray) -> np.ndarray:
    start_B = np.asarray(start_B, np.int64)
    if start_B.ndim != 1 or (start_B < 0).any():
        raise ValueError(f"positions must be a vector of integers >= 0, got {start_B!r}")
    return start_B


def split_files(split_entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries (name, bytes, SHA-256) of all files of a split."""
    return [*split_entry["shards"], split_entry["starts"], split_entry["origin"]]


def _check_size(path: str, entry: dict[str, Any]) -> None:
    file = os.path.join(path, entry["file"])
    try:
        got = os.stat(file).st_size
    except OSError as error:
        raise UserError(f"{file}: missing from the store; {REBUILD}") from error
    if got != entry["bytes"]:
        raise UserError(f"{file}: has {got} bytes, not {entry['bytes']}; {REBUILD}")
