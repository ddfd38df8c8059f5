"""Items of choice made from plain documents: which of four passages goes on after this one?

The context are some words of a document, the right choice the words that follow, the wrong ones as
many words each from elsewhere in the same document; no two of them overlap. Words are what white
space separates; the white space inside a passage stays, that in front of the right choice ends the
context. So topic, author and length give nothing away.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lmjax.data import chunks
from lmjax.data.text import Document, read_documents
from lmjax.errors import UserError

NUM_CHOICES = 4
_TRIES = 20  # at places of a document, until four passages differ
_MOST_OF_ONE = 1000  # items of a document
_WORD = re.compile(r"\S+")


def make(
    files: Sequence[str],
    num_items: int,
    *,
    context_words: int,
    choice_words: int,
    seed: int,
    text_key: str = "text",
    text_split: str = "file",
    eval_fraction: float | None = None,
) -> list[dict[str, Any]]:
    """Lines for tools/evaluate.py, in random order; one of each document while there are enough.

    Args:
      files: from `data.files.find_files`.
      num_items: how many; fewer where there are not as many.
      context_words, choice_words: of a context and of each choice.
      seed: the same lines come from the same files and seed.
      text_key, text_split: as of `text.read_documents`.
      eval_fraction: only documents that `prepare` holds out with this share; None: all.

    Raises:
      UserError: no document is long enough.
    """
    reading = {"text_key": text_key, "text_split": text_split, "counts": Counter()}
    limit = chunks.NUM_HASHES if eval_fraction is None else int(eval_fraction * chunks.NUM_HASHES)
    documents = (
        (number, document)
        for number, document in enumerate(read_documents(files, **reading))
        if chunks.document_hash(document.text.encode()) < limit
    )
    needed = context_words + (NUM_CHOICES + 1) * choice_words
    drawn = _drawn(documents, needed, seed)
    items = []
    for _, _, number, turn, document in heapq.nsmallest(2 * num_items, drawn, lambda d: d[:4]):
        rng = np.random.default_rng([seed, number, turn])
        found = _item(document.text, context_words, choice_words, rng)
        if found is not None:
            items.append({"id": f"{number}-{turn}", **found})
        if len(items) == num_items:
            break
    if not items:
        of_them = "" if eval_fraction is None else " held out"
        raise UserError(
            f"no document{of_them} has the {needed} words that an item takes; give longer ones, "
            "or lower --context_words and --choice_words"
        )
    order = np.random.default_rng([seed, len(items)]).permutation(len(items))
    return [items[i] for i in order]


def _drawn(
    documents: Iterator[tuple[int, Document]], needed: int, seed: int
) -> Iterator[tuple[int, float, int, int, Document]]:
    """(turn, noise, number, turn, document): the smallest are to be taken first."""
    for number, document in documents:
        num_words = sum(1 for _ in _WORD.finditer(document.text))
        noise = np.random.default_rng([seed, number]).random(_MOST_OF_ONE)
        for turn in range(min(num_words // needed, _MOST_OF_ONE)):
            yield turn, float(noise[turn]), number, turn, document


def _item(
    text: str, context_words: int, choice_words: int, rng: np.random.Generator
) -> dict[str, Any] | None:
    spans = [match.span() for match in _WORD.finditer(text)]
    passage = lambda first, count: text[spans[first][0] : spans[first + count - 1][1]]
    for _ in range(_TRIES):
        start = int(rng.integers(len(spans) - context_words - choice_words + 1))
        stop = start + context_words
        others = [
            *_blocks(0, start, choice_words, rng),
            *_blocks(stop + choice_words, len(spans), choice_words, rng),
        ]
        wrong = rng.choice(others, NUM_CHOICES - 1, replace=False).tolist()
        choices = [passage(first, choice_words) for first in (stop, *wrong)]
        if len(set(choices)) == NUM_CHOICES:
            context = text[spans[start][0] : spans[stop][0]]
            order = rng.permutation(NUM_CHOICES).tolist()
            shuffled = [choices[i] for i in order]
            return {"context": context, "choices": shuffled, "answer": order.index(0)}
    return None


def _blocks(first: int, stop: int, size: int, rng: np.random.Generator) -> list[int]:
    """Where passages of `size` words begin that fill [first, stop) but for a rest."""
    count, rest = divmod(max(stop - first, 0), size)
    offset = first + int(rng.integers(rest + 1))
    return [offset + size * i for i in range(count)]
