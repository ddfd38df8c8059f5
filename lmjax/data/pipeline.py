"""Steps to batches, through Grain.

The global batch of a step is a pure function of (data, seed, step): row r of step s is number
`s * B + r` of the run, which is number i of its source (`data.mixture`); its row there is
`permute(i % n, n, seed, i // n)` of the source's n, and the objective's noise hangs on (seed,
epoch, row) alone. There is no iterator state to save: a run resumes by slicing, and the order knows
nothing of workers, hosts or devices.

One Grain element is one step, all rows of it, since Grain's cost is per element.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grain
import numpy as np

from lmjax import noise
from lmjax.batch import INFO_PREFIX, SOURCE, Batch, Objective
from lmjax.data.allocator import keep_freed
from lmjax.data.mixture import Mixture
from lmjax.data.rows import Rows

_ONE_SOURCE = Mixture()
_SHUFFLE = 2**32 - 1  # a noise stream of its own, apart from those of the objectives


@dataclass(frozen=True)
class TrainBatches:
    """Step (0, 1, ...) -> this host's rows of the global batch; endless epochs, reshuffled.

    Attributes:
      sources: the rows to take from, all of one objective.
      seed: seed of the sample order and of the objective's noise.
      global_batch_size: rows of a step over all hosts.
      rows: which rows of the global batch this host holds, int [R].
      mixture: the sources' shares.
    """

    sources: tuple[Rows, ...]
    seed: int
    global_batch_size: int
    rows: np.ndarray
    mixture: Mixture = _ONE_SOURCE

    @property
    def objective(self) -> Objective:
        return self.sources[0].objective

    def __call__(self, step: int) -> Batch:
        row_R = int(step) * self.global_batch_size + self.rows.astype(np.int64)
        source_R, number_R = self.mixture.locate(row_R)
        size_R = np.array([len(source) for source in self.sources])[source_R]
        epoch_R, index_R = np.divmod(number_R, size_R)
        for source, epoch in np.unique(np.stack([source_R, epoch_R]), axis=1).T.tolist():
            here = (source_R == source) & (epoch_R == epoch)
            key = (self.seed, _SHUFFLE, epoch, *([source] if len(self.sources) > 1 else []))
            index_R[here] = noise.permute(index_R[here], len(self.sources[source]), *key)
        return _make(self.sources, self.seed, source_R, epoch_R, index_R, row_R)


@dataclass(frozen=True)
class EvalBatches:
    """Chunk (0, 1, ...) -> `rows_per_chunk` rows, source by source in order, then padding.

    The noise is that of epoch 0, so every evaluation sees the same corruption.

    Attributes:
      sources, seed, rows: as in `TrainBatches`.
      num_rows: the first so many of each source.
      rows_per_chunk: rows of a chunk over all hosts.
    """

    sources: tuple[Rows, ...]
    seed: int
    num_rows: tuple[int, ...]
    rows_per_chunk: int
    rows: np.ndarray

    @property
    def objective(self) -> Objective:
        return self.sources[0].objective

    def __len__(self) -> int:
        return -(-sum(self.num_rows) // self.rows_per_chunk)

    def __call__(self, chunk: int) -> Batch:
        row_R = int(chunk) * self.rows_per_chunk + self.rows.astype(np.int64)
        end_K = np.cumsum(self.num_rows)
        source_R = np.minimum(np.searchsorted(end_K, row_R, side="right"), len(end_K) - 1)
        index_R = row_R - (end_K - self.num_rows)[source_R]
        # A row past the end of a source reads as padding, which is what a row too many wants.
        index_R = np.where(row_R < end_K[-1], index_R, len(self.sources[-1]))
        return _make(self.sources, self.seed, source_R, np.zeros_like(row_R), index_R, row_R)


def _make(
    sources: Sequence[Rows],
    seed: int,
    source_R: np.ndarray,
    epoch_R: np.ndarray,
    index_R: np.ndarray,
    row_R: np.ndarray,
) -> Batch:
    keep_freed()
    if len(sources) == 1:
        batch = sources[0].make(seed, epoch_R, index_R)
    else:
        batch = {
            name: np.empty(shape, dtype)
            for name, (shape, dtype) in sources[0].objective.spec(len(row_R)).items()
        }
        for k in np.unique(source_R):
            here = np.flatnonzero(source_R == k)
            made = sources[k].make(seed, epoch_R[here], index_R[here])
            for name, field in made.items():
                batch[name][here] = field
        batch[SOURCE] = source_R.astype(np.int32)
    batch[INFO_PREFIX + "row"] = row_R
    batch[INFO_PREFIX + "window"] = index_R
    return batch


def iterate(batches: TrainBatches, start: int, stop: int, num_workers: int) -> Iterator[Batch]:
    """Batches of steps start ... stop - 1, read ahead by a thread or by `num_workers` processes.

    Grain's worker processes need parsed absl flags, so run under `absl.app.run`.
    """
    steps = grain.MapDataset.range(start, stop).map(batches)
    if num_workers == 0:
        return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))
    # Queues of an earlier iteration, should the collector meet them while those of this one are
    # being registered, warn and leak on CPython 3.12 (its issue 131788).
    gc.collect()
    reading = steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    return iter(
        reading.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
        )
    )


@dataclass(frozen=True)
class TargetCounts:
    """How often each id is a target of the training objective, float64 [V] each."""

    all: np.ndarray
    content: np.ndarray

    def log_probs(self) -> tuple[np.ndarray, np.ndarray]:
        """Natural logs of the unigram distributions (add-one smoothed), float32 [V] each."""
        return smoothed(self.all), smoothed(self.content)


def smoothed(counts_V: np.ndarray) -> np.ndarray:
    """Natural logs of the frequencies that counts, one added to each, come to, float32 [V]."""
    return np.log((counts_V + 1.0) / (counts_V.sum() + len(counts_V))).astype(np.float32)


def count_targets(
    batches: TrainBatches, vocab_size: int, max_tokens: int = 2_000_000
) -> TargetCounts:
    """Counts targets over rows spread evenly over each source, up to `max_tokens` raw tokens.

    The unigram baseline of every objective comes from here: what one would score by knowing
    nothing but how frequent each target is.
    """
    sources, counts = batches.sources, TargetCounts(np.zeros(vocab_size), np.zeros(vocab_size))
    for k, share in enumerate(batches.mixture.share_K):
        wanted = max(1, int(share * max_tokens) // batches.objective.window_length)
        row_N = np.linspace(0, len(sources[k]) - 1, min(len(sources[k]), wanted)).astype(np.int64)
        # Of a small source as much as its share says, though there is less to see of it.
        weight = wanted / len(row_N) if len(sources) > 1 else 1.0
        for row_R in np.array_split(row_N, -(-len(row_N) // 64)):
            batch = sources[k].make(batches.seed, np.zeros_like(row_R), row_R)
            targets = batch["targets"].ravel()
            for total_V, field in ((counts.all, "weights"), (counts.content, "content_weights")):
                counted_V = np.bincount(targets, batch[field].ravel() > 0, minlength=vocab_size)
                total_V += weight * counted_V
    return counts
