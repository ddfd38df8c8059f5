"""Text files -> token store: parallel, deterministic, resumable, in bounded memory.

The store depends on the text, the tokenizer and the settings, not on the number of workers. After
every shard, and every few seconds, a journal says where reading stood; the same command after a
kill goes on from there and ends with the same bytes. The manifest is written last.

A document is held out when the hash of its text, as a fraction, is below `eval_fraction`: equal
texts always fall on the same side, in every run. Where a small text leaves one side empty, the
limit moves to its smallest (or largest) hash and the text is tokenised once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmjax import paths
from lmjax.data import chunks, journal, store, text, writer
from lmjax.data import files as files_lib
from lmjax.data import manifest as manifest_lib
from lmjax.data import progress as progress_lib
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.errors import UserError

SPLITS = ("train", "eval")
BLOCK_SIZE = 2048  # tokens of a record, in all but huge stores
BLOCKS_PER_SHARD = 1 << 13  # opening a shard and reading a record of it take longer with more
_MAX_SHARDS = 1 << 12
_MAX_BLOCK_SIZE = 1 << 15
_PLAIN_BYTES_PER_TOKEN = 4  # compressed text has about one
_MAX_LEDGER_BYTES = 256 << 20
_JOURNAL_SECONDS = 2.0  # a kill costs no more work than this


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be done; everything the store depends on."""

    files: tuple[str, ...]
    sizes: tuple[int, ...]
    tokenizer: tokenizer_lib.AnyTokenizer
    output: str
    block_size: int
    settings: dict[str, Any]

    def description(self) -> dict[str, Any]:
        """The part of the manifest that is known beforehand."""
        names = files_lib.short_names(self.files)
        return {
            "format": 1,
            "dtype": chunks.token_dtype(self.tokenizer.vocab_size).name,
            "block_size": self.block_size,
            "settings": self.settings,
            "tokenizer": {
                "sha256": self.tokenizer.sha256,
                "vocab_size": self.tokenizer.vocab_size,
            },
            "inputs": [{"name": n, "bytes": b} for n, b in zip(names, self.sizes, strict=True)],
        }

    def key(self) -> str:
        """Binds a journal to the job and to the very files it reads."""
        content = json.dumps([self.description(), [(f, _version(f)) for f in self.files]])
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(slots=True)
class _Totals:
    """What is known after the last document."""

    writers: dict[str, writer.SplitWriter]
    counts: Counter[str]
    hash_range: tuple[int, int]
    threshold: int

    def num_documents(self) -> dict[str, int]:
        return {split: w.num_documents for split, w in self.writers.items()}

    def close(self) -> None:
        for w in self.writers.values():
            w.close()


def prepare(
    files: Sequence[str],
    tokenizer_path: str | os.PathLike,
    output: str | os.PathLike,
    *,
    text_key: str = "text",
    text_split: str = "file",
    eval_fraction: float = 0.01,
    num_workers: int | None = None,
    shard_tokens: int | None = None,
    progress: progress_lib.Progress = lambda done, total, tokens: None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Tokenises text into a store, goes on with an unfinished one, or reuses a finished one.

    Args:
      files: as `find_files` gives them.
      tokenizer_path: folder of the tokenizer; copied into the store.
      output: folder of the store.
      text_key, text_split: as in `read_documents`.
      eval_fraction: share of documents that go to the "eval" split, by hash.
      num_workers: threads that tokenise; None: one per core.
      shard_tokens: tokens of a shard file, a multiple of 2048; None: as `layout` has it.
      progress: called now and then with (bytes read, bytes in all, tokens written).
      log: gets lines worth telling the user.

    Returns:
      The manifest, see `lmjax.data.store`.

    Raises:
      UserError: no documents, unreadable input, or an output that cannot be written or holds
        something else.
    """
    if shard_tokens is not None and (shard_tokens <= 0 or shard_tokens % BLOCK_SIZE):
        raise ValueError(f"shard_tokens={shard_tokens} must be a multiple of {BLOCK_SIZE}")
    output = os.path.abspath(os.path.expanduser(output))
    sizes = tuple(_size(file) for file in files)
    block_size = BLOCK_SIZE
    if shard_tokens is None:
        block_size, shard_tokens = layout(files, sizes)
    settings = {
        "text_key": text_key,
        "text_split": text_split,
        "eval_fraction": eval_fraction,
        "shard_tokens": shard_tokens,
    }
    tokenizer = tokenizer_lib.load(tokenizer_path)
    job = _Job(tuple(files), sizes, tokenizer, output, block_size, settings)
    with files_lib.writing(output):
        os.makedirs(output, exist_ok=True)
    with files_lib.locked(output, f"prepares {output}", log):
        if store.is_store(output):
            manifest = _reuse(job, log)
        else:
            manifest = _build(job, num_workers or os.cpu_count() or 1, progress, log)
        writer.remove_leftovers(output, keep=manifest)
    return manifest


def layout(files: Sequence[str], sizes: Sequence[int]) -> tuple[int, int]:
    """(tokens of a block, tokens of a shard) for text of these files and sizes in bytes.

    2048 and 2^24 up to 64 GiB of compressed or 256 GiB of plain text. Beyond, both are doubled
    until the shards are at most some 4,096, or a block has 2^15 tokens.
    """
    plain = sum(
        n for f, n in zip(files, sizes, strict=True) if files_lib.suffix(f) in files_lib.LINES
    )
    tokens = sum(sizes) - plain + plain // _PLAIN_BYTES_PER_TOKEN
    block_size = BLOCK_SIZE
    while block_size < _MAX_BLOCK_SIZE and tokens > _MAX_SHARDS * BLOCKS_PER_SHARD * block_size:
        block_size *= 2
    return block_size, BLOCKS_PER_SHARD * block_size


def _size(file: str) -> int:
    with text.file_errors(file):
        return paths.size(file)


def _version(file: str) -> float | str:
    return paths.version(file) if paths.is_remote(file) else _mtime(file)


def _mtime(file: str) -> float:
    return os.stat(file).st_mtime if os.path.exists(file) else 0


def _reuse(job: _Job, log: Callable[[str], None]) -> dict[str, Any]:
    """The manifest of the finished store, if it is what the job would make."""
    manifest, _ = store.read_manifest(job.output)
    wanted = job.description()
    other = [k for k in wanted if k != "settings" and manifest.get(k) != wanted[k]]
    other += [k for k, v in job.settings.items() if manifest["settings"].get(k) != v]
    written = _mtime(os.path.join(job.output, store.MANIFEST))
    if not other and any(_mtime(file) > written for file in job.files):
        other = ["text (changed since)"]
    if other:
        raise UserError(
            f"{job.output}: holds a finished store of other {', '.join(other)}; "
            "choose another output or delete it"
        )
    for split in manifest["splits"]:
        store.Store.open(job.output, split)
    log(f"{job.output} is finished already; nothing to do")
    return manifest


def _build(
    job: _Job, num_workers: int, progress: progress_lib.Progress, log: Callable[[str], None]
) -> dict[str, Any]:
    key = job.key()
    saved = journal.load(job.output, key)
    if saved and not _can_resume(job, saved):
        saved = None
    if not saved:
        writer.check_ours(job.output)
        writer.remove_leftovers(job.output, keep={})
    else:
        tokens = sum(s["num_tokens"] for s in saved["splits"].values())
        log(f"going on with {job.output} after {tokens:,} tokens")
    fraction = job.settings["eval_fraction"]
    totals = _open(job, int(fraction * chunks.NUM_HASHES), saved)
    try:
        position = tuple(saved["position"]) if saved else (0, 0)
        _run(job, key, totals, position, num_workers, progress)
        if fraction and (threshold := _other_threshold(totals, log)) is not None:
            totals.close()
            writer.remove_leftovers(job.output, keep={})
            totals = _open(job, threshold, None)
            _run(job, key, totals, (0, 0), num_workers, progress)
        return _finish(job, totals)
    finally:
        totals.close()


def _can_resume(job: _Job, saved: dict[str, Any]) -> bool:
    dtype = chunks.token_dtype(job.tokenizer.vocab_size)
    size = job.settings["shard_tokens"]
    return all(
        writer.can_resume(job.output, split, saved["splits"][split], dtype, size)
        for split in SPLITS
    )


def _open(job: _Job, threshold: int, saved: dict[str, Any] | None) -> _Totals:
    """Writers and counts, empty or as the journal has them."""
    meta = saved or {}
    states = meta.get("splits", {})
    return _Totals(
        {split: _writer(job, split, states.get(split)) for split in SPLITS},
        Counter(meta.get("counts")),
        tuple(meta.get("hash_range", (chunks.NUM_HASHES, -1))),
        meta.get("threshold", threshold),
    )


def _run(
    job: _Job,
    key: str,
    totals: _Totals,
    position: tuple[int, int],
    num_workers: int,
    progress: progress_lib.Progress,
) -> None:
    """Reads the text from `position` to its end into the writers of `totals`."""
    encoded = chunks.encoded_chunks(
        job.files,
        job.tokenizer,
        text_key=job.settings["text_key"],
        text_split=job.settings["text_split"],
        threshold=totals.threshold,
        num_workers=num_workers,
        start=position,
        counts=totals.counts,
    )
    writers, size, saved_at = totals.writers, sum(job.sizes), time.monotonic()
    with contextlib.closing(encoded):
        for chunk in encoded:
            completed = [
                writers[s].add(p.tokens, p.lengths, p.origin, p.num_bytes)
                for s, p in chunk.parts.items()
            ]
            (low, high), (lowest, highest) = chunk.hash_range, totals.hash_range
            totals.hash_range = min(low, lowest), max(high, highest)
            totals.counts = chunk.counts
            if any(completed) or time.monotonic() - saved_at > _JOURNAL_SECONDS:
                _save_journal(job, key, totals, chunk.position)
                saved_at = time.monotonic()
            progress(chunk.bytes_read, size, sum(w.num_tokens for w in writers.values()))


def _writer(job: _Job, split: str, resume: dict[str, Any] | None) -> writer.SplitWriter:
    dtype = chunks.token_dtype(job.tokenizer.vocab_size)
    size = job.settings["shard_tokens"]
    return writer.SplitWriter(job.output, split, dtype, job.block_size, size, resume)


def _save_journal(job: _Job, key: str, totals: _Totals, position: tuple[int, int]) -> None:
    meta = {
        "key": key,
        "position": position,
        "threshold": totals.threshold,
        "counts": totals.counts,
        "hash_range": totals.hash_range,
        "splits": {split: w.state() for split, w in totals.writers.items()},
    }
    journal.save(job.output, meta)
    for w in totals.writers.values():
        w.forget()


def _other_threshold(totals: _Totals, log: Callable[[str], None]) -> int | None:
    """The hash limit that leaves neither side empty, where the present one does."""
    (lowest, highest), sizes = totals.hash_range, totals.num_documents()
    if (sizes["train"] and sizes["eval"]) or not sum(sizes.values()):
        return None
    if lowest == highest:
        log("nothing is held out: there is only one document; set data.eval_path or text_split")
        return 0 if sizes["eval"] else None
    side, limit = ("training", highest) if sizes["eval"] else ("evaluation", lowest + 1)
    log(f"few documents: none fell to {side}, so one is moved there")
    return limit


def _finish(job: _Job, totals: _Totals) -> dict[str, Any]:
    """Writes what is left of the store, the manifest last."""
    if not any(totals.num_documents().values()):
        raise UserError(
            f"{', '.join(job.files[:3])}: no documents"
            f"{progress_lib.skipped_line(totals.counts, ' (skipped: {})')}; "
            "check the input, text_key and text_split"
        )
    entries = {split: w.finish() for split, w in totals.writers.items()}
    manifest = manifest_lib.sealed(
        {
            **job.description(),
            "eval_hash_below": f"{totals.threshold:#x}",
            "counts": dict(sorted(totals.counts.items())),
            "splits": {split: entry for split, entry in entries.items() if entry},
        }
    )
    folder = os.path.join(job.output, store.TOKENIZER)
    with files_lib.writing(folder):
        os.makedirs(folder, exist_ok=True)
    job.tokenizer.save(folder)
    if (ledger := _ledger(job.files)) is not None:
        files_lib.write_whole(os.path.join(job.output, store.LEDGER), ledger)
    content = json.dumps(manifest, indent=2) + "\n"
    files_lib.write_whole(os.path.join(job.output, store.MANIFEST), content.encode())
    return manifest


def _ledger(files: Sequence[str]) -> bytes | None:
    """That of the one curation whose kept files these all are; None: they are not."""
    folders = {os.path.dirname(os.path.dirname(os.path.abspath(file))) for file in files}
    if len(folders) > 1 or any(paths.is_remote(file) for file in files):
        return None
    path = os.path.join(folders.pop(), store.LEDGER)
    try:
        content = paths.read_bytes(path, _MAX_LEDGER_BYTES)
        return content if content and "summary" in json.loads(content) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None  # some other file of that name
