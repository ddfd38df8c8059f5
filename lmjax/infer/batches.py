"""Sequences of any lengths -> batches of few shapes.

They are sorted by length, padded to powers of two and laid into batches with a fixed number of rows
per length, so that few shapes are compiled.

Shape suffixes: B rows, T length.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import NamedSharding

from lmjax.batch import Batch
from lmjax.model_config import ModelConfig
from lmjax.parallel import rules

_SHORTEST = 16  # what is shorter is padded to this

Lengths = tuple[int, int]


class Shapes:
    """The shapes of batches on a mesh."""

    def __init__(self, config: ModelConfig, sharding: NamedSharding, batch_tokens: int):
        """Of a model's batches.

        Args:
          config: of the model; nothing is padded to more than a learned position table has.
          sharding: how rows lie on the mesh.
          batch_tokens: rows x (padded) length of a batch is at most this, if not one row per part
            of the mesh is more already.
        """
        self._longest = config.max_positions if config.position == "learned" else None
        self._parts, self._batch_tokens = rules.split(sharding.mesh).rows, batch_tokens

    def batches(
        self, lengths: Mapping[int, Lengths], rows: Callable[[int], Iterable[Any]]
    ) -> Iterator[tuple[list[Any], Lengths]]:
        """Rows of each batch, and their padded lengths; longest first, where memory is most.

        Args:
          lengths: (of the source or 0, of the rest) of each example, by its number.
          rows: what an example is in a batch, one row or several.
        """
        padded = {index: tuple(map(self._padded, both)) for index, both in lengths.items()}
        order = sorted(padded, key=padded.__getitem__, reverse=True)
        for shape, group in itertools.groupby(order, key=padded.__getitem__):
            waiting = itertools.chain.from_iterable(map(rows, group))
            while batch := list(itertools.islice(waiting, self.num_rows(*shape))):
                yield batch, shape

    def num_rows(self, source: int, length: int) -> int:
        """Rows of a batch with these padded lengths."""
        return max(1, self._batch_tokens // (source + length) // self._parts) * self._parts

    def _padded(self, length: int) -> int:
        power = max(_SHORTEST, 1 << (length - 1).bit_length()) if length else 0
        return min(power, self._longest or power)


def read_behind(items: Iterable[Any], launch: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    """Each item with what it launched; the next one is computed while one is read."""
    running = None
    for item in items:
        launched = item, launch(item)
        if running:
            yield running
        running = launched
    if running:
        yield running


def sequences(ids: Sequence[np.ndarray], num_rows: int, length: int) -> Batch:
    """What a model reads of them, one per row, int32 [num_rows, length]; the rest is padding."""
    return {
        "inputs": filled(ids, num_rows, length),
        "segment_ids": filled([np.ones_like(i) for i in ids], num_rows, length),
        "positions": filled([np.arange(len(i)) for i in ids], num_rows, length),
    }


def encoder_side(batch: Batch) -> Batch:
    """The same fields as those that an encoder beside a decoder reads."""
    return {f"enc_{name}": field for name, field in batch.items()}


def filled(values: Sequence[np.ndarray], num_rows: int, length: int) -> np.ndarray:
    """int32 [num_rows, length]: the values, then zeros."""
    array = np.zeros((num_rows, length), np.int32)
    for row, given in zip(array, values, strict=False):
        row[: len(given)] = given
    return array
