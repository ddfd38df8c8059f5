"""Rows of several sources in fixed proportions, at every prefix of a run.

Which source a row comes from is a table of 2^16 rows that repeats. It is Tijdeman's chairman
assignment (1980, "The chairman assignment problem", Discrete Mathematics 32): after any number of
rows no source has had a whole row more or less than its share. The shares are those wanted, rounded
to multiples of 2^-16; every source has at least one. A source's own rows come in its own order,
epoch after epoch.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

PERIOD = 1 << 16


def shares(weights: Sequence[float], temperature: float = 1.0) -> tuple[float, ...]:
    """weight^(1 / temperature), divided by their sum: a temperature above 1 evens them out."""
    scaled = np.asarray(weights, np.float64)
    scaled = (scaled / scaled.max()) ** (1 / temperature)
    return tuple((scaled / scaled.sum()).tolist())


def quotas(share_K: Sequence[float], period: int = PERIOD) -> np.ndarray:
    """Rows of each source in a period, int64 [K], at least 1: what is left goes by remainder."""
    exact_K = np.asarray(share_K) * period
    quota_K = np.maximum(np.floor(exact_K).astype(np.int64), 1)
    while (missing := period - quota_K.sum()) != 0:
        gap_K = exact_K - quota_K
        gap_K[(quota_K == 1) & (missing < 0)] = np.inf
        quota_K[np.argmax(gap_K) if missing > 0 else np.argmin(gap_K)] += np.sign(missing)
    return quota_K


def assigned(quota_K: np.ndarray) -> np.ndarray:
    """The source of each row of a period, int32 [sum of quotas].

    The n-th row of a source (from 0) must not come before its share has grown to n + d, with
    d = 1 / (2 K - 2), nor after it has grown to n + 1 - d; of those that may come, the one
    whose time runs out first does.
    """
    num_sources, period = len(quota_K), int(quota_K.sum())
    if num_sources == 1:
        return np.zeros(period, np.int32)
    step = 2 * num_sources - 2  # all times in units of 1 / step rows
    source_P = np.empty(period, np.int32)

    def opens(k: int, n: int) -> int:
        return -(-(n * step + 1) * period // (step * int(quota_K[k]))) - 1

    def closes(k: int, n: int) -> int:
        return ((n + 1) * step - 1) * period // (step * int(quota_K[k]))

    counts = [0] * num_sources
    waiting = [(opens(k, 0), k) for k in range(num_sources)]
    heapq.heapify(waiting)
    ready: list[tuple[int, int]] = []
    for row in range(period):
        while waiting and waiting[0][0] <= row:
            _, k = heapq.heappop(waiting)
            heapq.heappush(ready, (closes(k, counts[k]), k))
        _, k = heapq.heappop(ready)
        source_P[row] = k
        counts[k] += 1
        heapq.heappush(waiting, (opens(k, counts[k]), k))
    return source_P


@dataclass(frozen=True)
class Mixture:
    """Running number of a row -> its source, and its number among the rows of that source."""

    share_K: tuple[float, ...] = (1.0,)

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        quota_K = quotas(self.share_K)
        source_P = assigned(quota_K)
        rank_P = np.empty(len(source_P), np.int64)
        for k, quota in enumerate(quota_K):
            rank_P[source_P == k] = np.arange(quota)
        return quota_K, source_P, rank_P

    def locate(self, row_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(source, its how many-th row it is), int64 [R] each."""
        row_R = np.asarray(row_R, np.int64)
        if len(self.share_K) == 1:
            return np.zeros_like(row_R), row_R
        quota_K, source_P, rank_P = self._tables
        period_R, place_R = np.divmod(row_R, PERIOD)
        source_R = source_P[place_R].astype(np.int64)
        return source_R, period_R * quota_K[source_R] + rank_P[place_R]

    def counts(self, num_rows: int) -> np.ndarray:
        """Rows of each source among the first `num_rows`, int64 [K]."""
        if len(self.share_K) == 1:
            return np.array([num_rows])
        quota_K, source_P, _ = self._tables
        periods, rest = divmod(num_rows, PERIOD)
        return periods * quota_K + np.bincount(source_P[:rest], minlength=len(quota_K))
