"""Nearest vectors by cosine: products of blocks, N^2 D operations for N vectors against each other.

No index is built. On one core a million vectors of width 256 take hours against each other and a
second against a query; beyond that, load the file into a library for approximate search.
"""

from __future__ import annotations

import numpy as np

from lmjax.infer.embed import normalised

_ROWS, _COLUMNS = 1024, 8192  # of a block


class Nearest:
    """The nearest of the vectors that come by to some that are known."""

    def __init__(self, queries: np.ndarray, count: int):
        """`queries` [Q, D]; `count`: how many to keep for each."""
        self._queries, self._count = normalised(queries), count
        self.index = np.zeros((len(queries), 0), np.int64)
        self.similarity = np.zeros((len(queries), 0), np.float32)

    def add(self, vectors: np.ndarray, first: int, but: int | None = None) -> None:
        """Looks at vectors [N, D] with numbers `first` and up.

        Args:
          vectors, first: as above.
          but: query q is not compared with vector `but + q`, which is itself.
        """
        similarity = self._queries @ normalised(vectors).T
        index = np.broadcast_to(np.arange(first, first + len(vectors)), similarity.shape)
        if but is not None:
            own = index == but + np.arange(len(similarity))[:, None]
            similarity[own] = -np.inf
        similarity = np.concatenate([self.similarity, similarity], axis=1)
        index = np.concatenate([self.index, index], axis=1)
        if similarity.shape[1] > self._count:
            kept = np.argpartition(-similarity, self._count - 1, axis=1)[:, : self._count]
            similarity, index = (
                np.take_along_axis(array, kept, axis=1) for array in (similarity, index)
            )
        order = np.argsort(-similarity, axis=1, kind="stable")
        self.similarity = np.take_along_axis(similarity, order, axis=1)
        self.index = np.take_along_axis(index, order, axis=1)


def of_each(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest others of each vector, nearest first.

    Args:
      vectors: [N, D]; may lie on disk.
      count: how many, at most N - 1.

    Returns:
      their numbers int64 [N, count] and cosines float32 [N, count].
    """
    count = min(count, len(vectors) - 1)
    index = np.zeros((len(vectors), max(count, 0)), np.int64)
    similarity = np.zeros(index.shape, np.float32)
    if count < 1:
        return index, similarity
    for row in range(0, len(vectors), _ROWS):
        nearest = Nearest(vectors[row : row + _ROWS], count)
        for column in range(0, len(vectors), _COLUMNS):
            nearest.add(vectors[column : column + _COLUMNS], column, but=row)
        index[row : row + _ROWS] = nearest.index
        similarity[row : row + _ROWS] = nearest.similarity
    return index, similarity
