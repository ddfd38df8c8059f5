"""Which of near-duplicates stay: a cluster is a chain, whose ends may have little in common.

Where A is like B and B like C, the engine keeps one of the three. If that is A, C is gone though
nothing that stays is like it. So the documents of each cluster are gone through in their order, and
one goes only if it is like one that stays. How alike two are is told by the share of minima in
which their MinHash signatures agree, an unbiased estimate of their Jaccard similarity s with the
variance s(1 - s)/minima (Broder 1997): the texts need not be read again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupCluster
from datatrove.pipeline.dedup.minhash import MinhashConfig


class Cluster(PipelineStep):
    """Clusters the engine's pairs, and writes for its filter what goes of them."""

    name, type = "near_cluster", "lmjax"

    def __init__(
        self,
        signatures: str,
        pairs: str,
        clusters: str,
        found: str,
        config: MinhashConfig,
        min_similarity: float,
    ) -> None:
        super().__init__()
        self._signatures, self._clusters, self._found = signatures, clusters, found
        self._config, self._min_similarity = config, min_similarity
        self._engine = MinhashDedupCluster(pairs, clusters, config, save_cluster_id=True)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        self._engine.run(None, rank, world_size)
        ranks, documents, clusters = _members(self._clusters)
        tasks = np.unique(ranks)
        if not len(tasks):
            return
        minima = np.concatenate(
            [_minima(self._signatures, t, documents[ranks == t], self._config) for t in tasks]
        )
        goes = np.zeros(len(ranks), bool)
        for members in _groups(clusters):
            goes[members] = repeated(minima[members], self._min_similarity)
        for task in tasks:
            path = os.path.join(self._found, f"{task:06d}.remove")
            documents[(ranks == task) & goes].astype("<u4").tofile(path)


def repeated(minima: np.ndarray, min_similarity: float) -> np.ndarray:
    """Says which documents agree in so large a share of minima with one that stays before them.

    Args:
      minima: [documents, minima] of any dtype that tells them apart.
      min_similarity: least share, in 0 to 1.

    Returns:
      [documents] of bool; the first is False.
    """
    stay: list[int] = []
    goes = np.zeros(len(minima), bool)
    for at, mine in enumerate(minima):
        goes[at] = bool(stay) and (minima[stay] == mine).mean(1).max() >= min_similarity
        if not goes[at]:
            stay.append(at)
    return goes


def _members(folder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Task, place in it and cluster of each document of a cluster, in the order of the first two.

    Sorted by task, so that each task's are together.
    """
    found = [np.empty((0, 3), np.int64)]
    for name in sorted(os.listdir(folder)):
        stem, _, kind = name.partition(".")
        if kind == "clusters":
            pairs = np.fromfile(os.path.join(folder, name), "<u4").reshape(-1, 2)
            found.append(np.column_stack([np.full(len(pairs), int(stem)), pairs]))
    ranks, documents, clusters = np.concatenate(found).T
    return ranks, documents, clusters


def _minima(folder: str, task: int, documents: np.ndarray, config: MinhashConfig) -> np.ndarray:
    """[documents, minima] of a task; of each the last 16 bits, which differ wherever minima do but
    once in 65,536 times."""
    width = config.hashes_per_bucket
    record = np.dtype([("minima", config.hash_config.np_descr, (width,)), ("document", "<u4")])
    found = np.empty((len(documents), config.num_buckets, width), np.uint16)
    for bucket in range(config.num_buckets):
        path = os.path.join(folder, f"bucket_{bucket:03d}", f"{task:05d}.minhash.sig")
        records = np.fromfile(path, record)  # sorted by minima
        order = np.argsort(records["document"])
        at = order[np.searchsorted(records["document"], documents, sorter=order)]
        found[:, bucket] = records["minima"][at].astype(np.uint16)
    return found.reshape(len(documents), -1)


def _groups(clusters: np.ndarray) -> Iterator[np.ndarray]:
    """Places of each cluster's members, in order."""
    order = np.argsort(clusters, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
