"""The token store: tokenised documents on disk, read at random by position in the stream.

A store is a folder that says all about itself:

  manifest.json            counts, sizes and SHA-256 of every file; written last
  SPLIT-00000.arrayrecord  the stream of tokens in records of `block_size` (the last one filled up
                           with pad), uint16 or uint32, little-endian
  SPLIT.starts.npy         uint64 [documents], where each document starts in the stream
  SPLIT.origin.npy         (file uint32, record uint64) [documents], where its text came from
  tokenizer/               the tokenizer of the ids

SPLIT is "train" or "eval". Every document ends with the end token. ArrayRecord checks its chunks
by hash: of 120 random bit flips in a shard it reported all.

Dimension key: B windows, L tokens of a window.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from lmjax.data import files as files_lib
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.errors import UserError

MANIFEST = "manifest.json"
_FIELDS = {"splits", "tokenizer", "block_size", "dtype"}  # of the manifest, beside "format"
TOKENIZER = "tokenizer"
ORIGIN_DTYPE = np.dtype([("file", "<u4"), ("record", "<u8")])
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # what suits random access
_MIN_BATCHED_READ = 128  # a batched read wakes a pool of threads, which costs about 0.7 ms
_REBUILD = "copy the store again, or delete it and prepare it anew"


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
    with open(file, "rb") as stream:
        return parse_manifest(stream.read(), file)


def parse_manifest(content: bytes, file: str) -> tuple[dict[str, Any], str]:
    """(manifest, its SHA-256) from the bytes of `file`.

    Raises:
      UserError: it is damaged or of an unknown format.
    """
    try:
        manifest = json.loads(content)
        version = manifest["format"]
        if version == 1 and not manifest.keys() >= _FIELDS:
            raise ValueError("fields are missing")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: damaged; {_REBUILD}") from error
    if version != 1:
        raise UserError(f"{file}: format {version} is unknown here; update lmjax or {_REBUILD}")
    return manifest, hashlib.sha256(content).hexdigest()


def file_entry(folder: str, file: str) -> dict[str, Any]:
    """What the manifest says of a file: name, size in bytes, SHA-256."""
    path = os.path.join(folder, file)
    return {"file": file, "bytes": os.path.getsize(path), "sha256": files_lib.sha256(path)}


class Store:
    """One split of a store, opened for reading. Threads may share it; it pickles by its path."""

    def __init__(self, path: str, split: str, manifest: dict[str, Any], sha256: str) -> None:
        """Use `Store.open`."""
        self.path, self.split = path, split
        self.manifest, self.manifest_sha256 = manifest, sha256
        self._entry = manifest["splits"][split]
        self.num_tokens: int = self._entry["num_tokens"]
        self.num_documents: int = self._entry["num_documents"]
        self.num_bytes: int = self._entry["num_bytes"]
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.tokenizer_path = os.path.join(path, TOKENIZER)
        self._block_size: int = manifest["block_size"]
        self._dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        sizes = [shard["num_blocks"] for shard in self._entry["shards"]]
        self._first_blocks = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._readers: dict[int, ArrayRecordReader] = {}
        self._arrays: dict[str, np.ndarray] = {}

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
          UserError: a record is corrupt; names the shard and the record.
        """
        start_B, size = _positions(start_B), self._block_size
        end_B = np.minimum(start_B + length, self.num_tokens)
        first_B, stop_B = start_B // size, -(-end_B // size)
        touched = first_B[:, None] + np.arange((length - 2) // size + 2)
        blocks = np.unique(touched[touched < stop_B[:, None]])
        # Blocks of one window are neighbours in `blocks`, so every window is a slice of `stream`.
        stream = np.zeros(len(blocks) * size + length + size, self._dtype)
        self._read_blocks(blocks, stream)
        offset_B = np.searchsorted(blocks, first_B) * size + start_B % size
        return np.lib.stride_tricks.sliding_window_view(stream, length)[offset_B].astype(np.int32)

    def documents_at(self, start_B: np.ndarray, length: int) -> np.ndarray:
        """Index of the document that each token of the windows of `read` belongs to.

        Returns:
          int64 [B, L]; -1 beyond the end of the stream.
        """
        start_B, starts = _positions(start_B), self._starts
        end_B = np.minimum(start_B + length, self.num_tokens)
        first_B = np.searchsorted(starts, start_B.astype(np.uint64), side="right") - 1
        next_B = np.searchsorted(starts, end_B.astype(np.uint64), side="left")
        num_B = np.maximum(next_B - first_B - 1, 0)  # documents that start inside the window
        row = np.repeat(np.arange(len(start_B)), num_B)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(num_B) - num_B, num_B)
        column = starts[first_B[row] + 1 + nth].astype(np.int64) - start_B[row]
        documents_BL = np.zeros((len(start_B), length), np.int64)
        documents_BL[:, 0] = first_B
        documents_BL[row, column] = 1
        np.cumsum(documents_BL, axis=1, out=documents_BL)
        documents_BL[start_B[:, None] + np.arange(length) >= self.num_tokens] = -1
        return documents_BL

    def bounds(self, first: int, stop: int) -> np.ndarray:
        """Where documents first ... stop - 1 start, and where the last ends, int64 [n + 1]."""
        starts = self._starts[first : stop + 1].astype(np.int64)
        return starts if stop < self.num_documents else np.append(starts, self.num_tokens)

    def documents_of(self, position_N: np.ndarray) -> np.ndarray:
        """Index of the document that each position of the stream is in, int64 [N]."""
        position_N = np.asarray(position_N).astype(np.uint64)
        return np.searchsorted(self._starts, position_N, side="right") - 1

    def origin(self, document: int) -> tuple[str, int]:
        """(input file, record in it) of a document; lines, rows and paragraphs count from 0."""
        file, record = self._array("origin")[document]
        return self.manifest["inputs"][file]["name"], int(record)

    @property
    def token_bytes(self) -> int:
        """Bytes of a token on disk."""
        return self._dtype.itemsize

    @property
    def _starts(self) -> np.ndarray:
        return self._array("starts")

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            file = os.path.join(self.path, self._entry[name]["file"])
            self._arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        return self._arrays[name]

    def _read_blocks(self, blocks: np.ndarray, out: np.ndarray) -> None:
        """Writes the tokens of sorted blocks to the front of `out`, one read per shard."""
        size, limits = self._block_size, np.searchsorted(blocks, self._first_blocks)
        for shard in np.flatnonzero(np.diff(limits)):
            begin, end = limits[shard], limits[shard + 1]
            records = self._records(shard, (blocks[begin:end] - self._first_blocks[shard]).tolist())
            out[begin * size : end * size] = np.frombuffer(records, self._dtype)

    def _records(self, shard: int, indices: Sequence[int]) -> bytes:
        file = os.path.join(self.path, self._entry["shards"][shard]["file"])
        try:
            if shard not in self._readers:
                self._readers[shard] = ArrayRecordReader(file, _READER_OPTIONS)
            data = b"".join(_read_records(self._readers[shard], indices))
        except (RuntimeError, ValueError, IndexError, OSError):
            data = b""
        if len(data) == len(indices) * self._block_size * self._dtype.itemsize:
            return data
        if len(indices) > 1:  # find the one that is at fault
            return b"".join(self._records(shard, [index]) for index in indices)
        raise UserError(f"{file}: record {indices[0]} is corrupt; {_REBUILD}")


def _read_records(reader: ArrayRecordReader, indices: Sequence[int]) -> list[bytes]:
    if len(indices) < _MIN_BATCHED_READ:
        return [record for index in indices for record in reader.read([index])]
    return reader.read(indices)


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
    if not os.path.isfile(file):
        raise UserError(f"{file}: missing from the store; {_REBUILD}")
    if (got := os.path.getsize(file)) != entry["bytes"]:
        raise UserError(f"{file}: has {got} bytes, not {entry['bytes']}; {_REBUILD}")


def verify(path: str | os.PathLike) -> None:
    """Reads a whole store and checks every file's SHA-256 and that all it says is in range.

    Raises:
      UserError: at the first file that is not what the manifest promises; names it.
    """
    manifest, _ = read_manifest(path)
    tokenizer = tokenizer_lib.load(os.path.join(os.path.expanduser(path), TOKENIZER))
    if tokenizer.sha256 != manifest["tokenizer"]["sha256"]:
        raise UserError(f"{path}/{TOKENIZER}: not the tokenizer of this store; {_REBUILD}")
    for split in manifest["splits"]:
        store = Store.open(path, split)
        for entry in split_files(manifest["splits"][split]):
            file = os.path.join(store.path, entry["file"])
            if files_lib.sha256(file) != entry["sha256"]:
                raise UserError(f"{file}: not the content its SHA-256 promises; {_REBUILD}")
        _verify_ranges(store)


def _verify_ranges(store: Store) -> None:
    where = os.path.join(store.path, store.split)
    starts = store._array("starts")
    steps_ok = len(starts) == store.num_documents and (np.diff(starts.astype(np.int64)) > 0).all()
    if not steps_ok or starts[0] != 0 or starts[-1] >= store.num_tokens:
        raise UserError(f"{where}.starts.npy: document starts are out of order; {_REBUILD}")
    origin = store._array("origin")
    if len(origin) != len(starts) or origin["file"].max() >= len(store.manifest["inputs"]):
        raise UserError(f"{where}.origin.npy: origins are out of range; {_REBUILD}")
    rows = 64
    step = rows * store._block_size
    for start in range(0, store.num_tokens, step):
        tokens = store.read(np.arange(start, start + step, store._block_size), store._block_size)
        if tokens.max() >= store.vocab_size:
            shard = np.searchsorted(store._first_blocks, start // store._block_size, "right") - 1
            file = store._entry["shards"][shard]["file"]
            raise UserError(f"{store.path}/{file}: id {tokens.max()} is outside the vocabulary")
