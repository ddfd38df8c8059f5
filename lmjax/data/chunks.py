"""Documents -> tokens, in chunks: one thread reads, others encode, chunks come back in order.

Tokenizers and the hashes run outside Python's lock, so threads do as well as processes would
and share the tokenizer. The number of chunks on their way is bounded, and each one says how reading
stood right after its last document, which is what a journal needs.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lmjax import paths
from lmjax.data.store import ORIGIN_DTYPE
from lmjax.data.text import Document, Meter, read_documents
from lmjax.data.tokenizer import AnyTokenizer

NUM_HASHES = 1 << 64
_HASH_DOMAIN = b"held-out"  # keeps the split independent of other uses of a text's hash
_CHUNK_CHARS = 1 << 20
_MAX_CHARS_IN_FLIGHT = 1 << 26


@dataclass(frozen=True, slots=True)
class Part:
    """Documents of a chunk that go to one split; the arguments of `SplitWriter.add`."""

    tokens: np.ndarray
    lengths: np.ndarray
    origin: np.ndarray
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Encoded documents, and how reading stood right after the last of them."""

    parts: dict[str, Part]
    hash_range: tuple[int, int]  # smallest and largest
    position: tuple[int, int]  # (file, record) to read next
    counts: Counter[str]  # as `read_documents` has them
    bytes_read: int


def document_hash(text: bytes) -> int:
    """Hash of a document's UTF-8 text, uniform in [0, 2**64): what decides about its split."""
    digest = hashlib.blake2b(text, digest_size=8, person=_HASH_DOMAIN).digest()
    return int.from_bytes(digest, "big")


def encoded_chunks(
    files: Sequence[str],
    tokenizer: AnyTokenizer,
    *,
    text_key: str,
    text_split: str,
    threshold: int,
    num_workers: int,
    start: tuple[int, int] = (0, 0),
    counts: Counter[str] | None = None,
) -> Iterator[Chunk]:
    """Reads and encodes all documents from `start` on, in order.

    The last chunk is empty: it has the final counts.

    Args:
      files, text_key, text_split, start: as in `read_documents`.
      tokenizer: gives the ids; its end token is put after each document.
      threshold: documents whose hash is below it go to "eval", the others to "train".
      num_workers: threads that encode.
      counts: what was counted before `start`; added to, not changed.
    """
    counts = Counter(counts or {})
    meter = Meter(sum(map(paths.size, files[: start[0]])))
    documents = read_documents(
        files, text_key=text_key, text_split=text_split, counts=counts, start=start, meter=meter
    )
    waiting: deque[tuple[Future[Chunk], int]] = deque()
    pool = ThreadPoolExecutor(num_workers)
    try:
        for batch, num_chars in _batches(documents):
            position = (batch[-1].file, batch[-1].record + 1)
            state = (position, Counter(counts), meter.bytes_read)
            waiting.append((pool.submit(_encode, tokenizer, batch, threshold, state), num_chars))
            while len(waiting) > 2 * num_workers or (
                len(waiting) > 1 and sum(n for _, n in waiting) > _MAX_CHARS_IN_FLIGHT
            ):
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
        yield Chunk({}, (NUM_HASHES, -1), (len(files), 0), counts, meter.bytes_read)
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(documents: Iterator[Document]) -> Iterator[tuple[list[Document], int]]:
    batch, num_chars = [], 0
    for document in documents:
        batch.append(document)
        num_chars += len(document.text)
        if num_chars >= _CHUNK_CHARS:
            yield batch, num_chars
            batch, num_chars = [], 0
    if batch:
        yield batch, num_chars


def _encode(
    tokenizer: AnyTokenizer, documents: list[Document], threshold: int, state: tuple
) -> Chunk:
    ids = tokenizer.encode_batch([d.text for d in documents])
    utf8 = [d.text.encode() for d in documents]
    hashes = [document_hash(t) for t in utf8]
    held_out = np.array([h < threshold for h in hashes])
    sizes = np.array([len(t) for t in utf8])
    origin = np.array([(d.file, d.record) for d in documents], ORIGIN_DTYPE)
    dtype = token_dtype(tokenizer.vocab_size)
    end = np.array([tokenizer.ids(tokenizer.vocab_size).eos], dtype)
    parts = {}
    for split, mask in (("train", ~held_out), ("eval", held_out)):
        chosen = [ids[i] for i in np.flatnonzero(mask)]
        if chosen:
            tokens = np.concatenate(
                [a for t in chosen for a in (t, end)], dtype=dtype, casting="unsafe"
            )
            lengths = np.array([len(t) + 1 for t in chosen])
            parts[split] = Part(tokens, lengths, origin[mask], int(sizes[mask].sum()))
    return Chunk(parts, (min(hashes), max(hashes)), *state)


def token_dtype(vocab_size: int) -> np.dtype:
    """Type of the tokens on disk: uint16 where the ids fit, else uint32, little-endian."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
