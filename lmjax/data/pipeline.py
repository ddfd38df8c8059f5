"""Steps to batches, through Grain.

The global batch of a step is a pure function of (data, seed, step): row r of step s is window
`permute(i, n, seed, epoch)` with `epoch, i = divmod(s * B + r, n)`, and the objective's noise
hangs on (seed, epoch, window) alone. There is no iterator state to save: a run resumes by
slicing, and the order knows nothing of workers, hosts or devices.

One Grain element is one step, all rows of it, since Grain's cost is per element.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import grain
import numpy as np

from lmjax import noise
from lmjax.batch import INFO_PREFIX, Batch, Objective
from lmjax.data.windows import Windows

_SHUFFLE = 2**32 - 1  # a noise stream of its own, apart from those of the objectives


@dataclass(frozen=True)
class TrainBatches:
    """Step (0, 1, ...) -> this host's rows of the global batch; endless epochs, reshuffled.

    Attributes:
      windows: the store cut into windows.
      objective: makes the batch.
      seed: seed of the sample order and of the objective's noise.
      global_batch_size: rows of a step over all hosts.
      rows: which rows of the global batch this host holds, int [R].
    """

    windows: Windows
    objective: Objective
    seed: int
    global_batch_size: int
    rows: np.ndarray

    def __call__(self, step: int) -> Batch:
        row_R = int(step) * self.global_batch_size + self.rows.astype(np.int64)
        epoch_R, index_R = np.divmod(row_R, len(self.windows))
        window_R = np.empty_like(row_R)
        for epoch in np.unique(epoch_R):  # one, or two where a step crosses into the next epoch
            here = epoch_R == epoch
            window_R[here] = noise.permute(
                index_R[here], len(self.windows), self.seed, _SHUFFLE, int(epoch)
            )
        return _make(self.windows, self.objective, self.seed, epoch_R, window_R, row_R)


@dataclass(frozen=True)
class EvalBatches:
    """Chunk (0, 1, ...) -> `rows_per_chunk` windows in store order; rows past the end are padding.

    The noise is that of epoch 0, so every evaluation sees the same corruption.
    """

    windows: Windows
    objective: Objective
    seed: int
    num_windows: int
    rows_per_chunk: int
    rows: np.ndarray

    def __len__(self) -> int:
        return -(-self.num_windows // self.rows_per_chunk)

    def __call__(self, chunk: int) -> Batch:
        row_R = int(chunk) * self.rows_per_chunk + self.rows.astype(np.int64)
        # A window past the end of the store reads as padding, which is what a row too many wants.
        window_R = np.where(row_R < self.num_windows, row_R, len(self.windows))
        return _make(self.windows, self.objective, self.seed, np.zeros_like(row_R), window_R, row_R)


def _make(
    windows: Windows,
    objective: Objective,
    seed: int,
    epoch_R: np.ndarray,
    window_R: np.ndarray,
    row_R: np.ndarray,
) -> Batch:
    tokens_RW, documents_RW = windows.read(window_R)
    batch = objective(tokens_RW, documents_RW, noise.RowNoise(seed, epoch_R, window_R))
    batch[INFO_PREFIX + "row"] = row_R
    batch[INFO_PREFIX + "window"] = window_R
    return batch


def iterate(batches: TrainBatches, start: int, stop: int, num_workers: int) -> Iterator[Batch]:
    """Batches of steps start ... stop - 1, read ahead by a thread or by `num_workers` processes.

    Grain's worker processes need parsed absl flags, so run under `absl.app.run`.
    """
    steps = grain.MapDataset.range(start, stop).map(batches)
    if num_workers == 0:
        return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))
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
        return _log_probs(self.all), _log_probs(self.content)


def _log_probs(counts_V: np.ndarray) -> np.ndarray:
    return np.log((counts_V + 1.0) / (counts_V.sum() + len(counts_V))).astype(np.float32)


def count_targets(
    windows: Windows, objective: Objective, seed: int, vocab_size: int, max_tokens: int = 2_000_000
) -> TargetCounts:
    """Counts targets over windows spread evenly over the store, up to `max_tokens` raw tokens.

    The unigram baseline of every objective comes from here: what one would score by knowing
    nothing but how frequent each target is.
    """
    num_windows = min(len(windows), max(1, max_tokens // objective.window_length))
    window_N = np.linspace(0, len(windows) - 1, num_windows).astype(np.int64)
    counts = TargetCounts(np.zeros(vocab_size), np.zeros(vocab_size))
    for window_R in np.array_split(window_N, -(-num_windows // 64)):
        batch = _make(windows, objective, seed, np.zeros_like(window_R), window_R, window_R)
        targets = batch["targets"].ravel()
        for total_V, field in ((counts.all, "weights"), (counts.content, "content_weights")):
            total_V += np.bincount(targets, batch[field].ravel() > 0, minlength=vocab_size)
    return counts
