"""A whole store checked against its manifest, in bounded memory and with all cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lmjax.data import document_index, npy, progress
from lmjax.data import files as files_lib
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.shard_readers import ShardReaders
from lmjax.data.store import ORIGIN_DTYPE, REBUILD, TOKENIZER, Store, read_manifest, split_files
from lmjax.errors import UserError

_BYTES_AT_ONCE = 1 << 22


def verify(
    path: str | os.PathLike,
    show: progress.Progress = lambda done, total, tokens=None: None,
) -> None:
    """Reads a whole store and checks every file's SHA-256 and that all it says is in range.

    Args:
      path: folder of the store.
      show: called now and then with (bytes read, bytes in all).

    Raises:
      UserError: at the first file that is not what the manifest promises; names it.
    """
    manifest, _ = read_manifest(path)
    check_tokenizer(path, manifest)
    stores = [Store.open(path, split) for split in manifest["splits"]]
    checks = [(store, entry) for store in stores for entry in split_files(store.entry)]
    done, total = 0, sum(entry["bytes"] for _, entry in checks)
    pool = ThreadPoolExecutor(os.cpu_count() or 1)  # hashing runs outside Python's lock
    try:
        for size in pool.map(lambda check: _check(*check), checks):
            done += size
            show(done, total)
    finally:
        pool.shutdown(cancel_futures=True)


def check_tokenizer(path: str | os.PathLike, manifest: Mapping[str, Any]) -> None:
    """Raises UserError unless the tokenizer in a store's folder is the one of its ids."""
    folder = os.path.join(os.path.expanduser(path), TOKENIZER)
    tokenizer, said = tokenizer_lib.load(folder), manifest["tokenizer"]
    if (tokenizer.sha256, tokenizer.vocab_size) != (said["sha256"], said["vocab_size"]):
        raise UserError(f"{folder}: not the tokenizer of this store; {REBUILD}")


def _check(store: Store, entry: dict[str, Any]) -> int:
    """Checks one file, which is read twice in a row, and says how long it is."""
    file = os.path.join(store.path, entry["file"])
    if files_lib.sha256(file) != entry["sha256"]:
        raise UserError(f"{file}: not the content its SHA-256 promises; {REBUILD}")
    if entry is store.entry["starts"]:
        _check_starts(store, file)
    elif entry is store.entry["origin"]:
        _check_origin(store, file)
    else:
        _check_shard(store, file, entry["num_blocks"])
    return entry["bytes"]


def _check_shard(store: Store, file: str, num_blocks: int) -> None:
    size = store.block_size * store.dtype.itemsize
    step = max(1, _BYTES_AT_ONCE // size)
    readers = ShardReaders()
    for start in range(0, num_blocks, step):
        indices = range(start, min(start + step, num_blocks))
        try:
            data = b"".join(readers.read(file, indices))
        except (RuntimeError, ValueError, IndexError, OSError):
            data = b""
        if len(data) != len(indices) * size:
            raise UserError(f"{file}: records from {start} on are corrupt; {REBUILD}")
        if (largest := np.frombuffer(data, store.dtype).max()) >= store.vocab_size:
            raise UserError(f"{file}: id {largest} is outside the vocabulary")


def _check_starts(store: Store, file: str) -> None:
    last, in_order = -1, True
    for starts in _pieces(file, document_index.DTYPE, store.num_documents):
        in_order &= bool((np.diff(starts.astype(np.int64), prepend=last) > 0).all())
        in_order &= last >= 0 or starts[0] == 0
        last = int(starts[-1])
    if not in_order or last >= store.num_tokens:
        raise UserError(f"{file}: document starts are out of order; {REBUILD}")


def _check_origin(store: Store, file: str) -> None:
    num_files = len(store.manifest["inputs"])
    for origin in _pieces(file, ORIGIN_DTYPE, store.num_documents):
        if origin["file"].max() >= num_files:
            raise UserError(f"{file}: origins are out of range; {REBUILD}")


def _pieces(file: str, dtype: np.dtype, num_documents: int) -> Iterator[np.ndarray]:
    """The array of a file, a piece at a time; a map of it would count as this process's memory."""
    offset = npy.mapped(file, dtype, num_documents, REBUILD).offset
    with open(file, "rb") as stream:
        stream.seek(offset)
        while len(piece := np.fromfile(stream, dtype, _BYTES_AT_ONCE // dtype.itemsize)):
            yield piece
