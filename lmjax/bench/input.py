"""How fast batches are made and how full their rows are.

Rates are per core: raw tokens of text over the CPU seconds of this process (threads included), so
they do not depend on how many cores happen to be free. What is compared is timed in one run, in
alternating blocks, of which the medians count.

Dimension key: R rows.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.batch import INFO_PREFIX, SOURCE, Batch
from lmjax.bench.collators import Peer
from lmjax.data.pipeline import TrainBatches
from lmjax.data.rows import PlannedRows, Rows
from lmjax.data.windows import Windows
from lmjax.noise import RowNoise

# Tokens per second and core to reach, by objective; of one that is not here, the least of them.
TARGETS = {"clm": 5e6, "mlm": 2e6, "span_corruption": 1e6, "denoising": 0.5e6}
# How many times as fast as the collators of transformers.
PEER_TARGETS = {"mlm": 1.0, "span_corruption": 5.0}
FILL_TARGET = 0.98  # of rows of whole documents

_ROW = INFO_PREFIX + "window"
_BLOCK_SECONDS = 0.2
_ROWS_LOOKED_AT = 512


@dataclass(frozen=True)
class PeerRates:
    """What our rates are held against.

    Attributes:
      name, form: as `collators.Peer` has them.
      rate: raw tokens per CPU second.
      ratio: of whole batches, text read from the disk included, to that.
      objective_ratio: of the objective alone, from windows in memory, to that.
      target: of the ratio.
    """

    name: str
    form: str
    rate: float
    ratio: float
    objective_ratio: float
    target: float


@dataclass(frozen=True)
class InputRates:
    """Raw tokens per CPU second, medians over blocks of steps.

    Attributes:
      objective: its name.
      read: windows of the stream, tokens and documents.
      corrupt: the objective alone, on such windows in memory.
      batch: whole batches, as a run has them.
      target: of that.
      rows: of a batch.
      fill: as `fill`.
      peer: None where there was none.
    """

    objective: str
    read: float
    corrupt: float
    batch: float
    target: float
    rows: int
    fill: dict[str, float]
    peer: PeerRates | None = None

    def as_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "objective": self.objective,
            "batch_size": self.rows,
            "read_tokens_per_core_second": self.read,
            "objective_tokens_per_core_second": self.corrupt,
            "batch_tokens_per_core_second": self.batch,
            "target_tokens_per_core_second": self.target,
            "fill": self.fill,
        }
        if self.peer is not None:
            against = dataclasses.asdict(self.peer)
            fields["against"] = against | {"tokens_per_core_second": against.pop("rate")}
        return fields


def sample(batches: TrainBatches) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and documents of as many windows of the stream as a batch has rows, at random."""
    windows, num_rows = _windows(batches), len(batches.rows)
    return windows.read(np.random.default_rng(0).integers(0, len(windows), num_rows))


def _windows(batches: TrainBatches) -> Windows:
    objective = batches.objective
    store = batches.sources[0].store
    return Windows(store, objective.window_length, objective.window_stride)


def measure(
    batches: TrainBatches, name: str, seconds: float = 6.0, peer: Peer | None = None
) -> InputRates:
    """Times reading alone, the objective alone, whole batches, and a peer.

    Args:
      batches: as a run has them.
      name: of the objective.
      seconds: how long in all.
      peer: made of `sample`.
    """
    objective, rng = batches.objective, np.random.default_rng(0)
    windows, num_rows = _windows(batches), len(batches.rows)
    tokens, documents = sample(batches)
    if objective.joins_documents:
        documents = np.minimum(documents, 0)
    index = np.arange(num_rows)
    row_noise = RowNoise(0, np.zeros_like(index), index)
    made: list[Batch] = []  # of batches, what says which rows they are
    jobs: dict[str, Callable[[int], object]] = {
        "read": lambda i: windows.read(rng.integers(0, len(windows), num_rows)),
        "corrupt": lambda i: objective(tokens, documents, row_noise),
        "batch": lambda i: made.append(_rows_of(batches(i))),
    }
    if peer is not None:
        jobs["peer"] = lambda i: peer.call()
    rates: dict[str, list[float]] = {job: [] for job in jobs}
    end, step = time.monotonic() + seconds, 0
    while time.monotonic() < end or not rates["batch"]:
        for job, fn in jobs.items():
            made.clear()
            began, done = time.process_time(), 0
            while (spent := time.process_time() - began) < _BLOCK_SECONDS:
                fn(step)
                step, done = step + 1, done + 1
            each = peer.tokens if job == "peer" else num_rows * objective.window_stride
            total = sum(raw_tokens(batches, batch) for batch in made) if made else done * each
            rates[job].append(total / spent)
    medians = {job: statistics.median(values) for job, values in rates.items()}
    rate = medians.pop("peer", None)
    return InputRates(
        name,
        **medians,
        target=TARGETS.get(name, min(TARGETS.values())),
        rows=num_rows,
        fill=fill(batches),
        peer=None
        if peer is None
        else PeerRates(
            peer.name,
            peer.form,
            rate,
            ratio=medians["batch"] / rate,
            objective_ratio=medians["corrupt"] / rate,
            target=PEER_TARGETS[name],
        ),
    )


def _rows_of(batch: Batch) -> Batch:
    return {name: batch[name] for name in (_ROW, SOURCE) if name in batch}


def raw_tokens(batches: TrainBatches, batch: Batch) -> int:
    """Tokens of text that a batch was made of; the one that two windows share counts once."""
    row_R = batch[_ROW]
    source_R = batch.get(SOURCE, np.zeros_like(row_R))
    return sum(_raw_tokens(batches.sources[k], row_R[source_R == k]) for k in np.unique(source_R))


def _raw_tokens(rows: Rows, row_R: np.ndarray) -> int:
    if isinstance(rows, PlannedRows):
        _, _, length_D = rows.plan.parts(row_R)
        return int(length_D.sum())
    stride = rows.objective.window_stride
    overlap = rows.objective.window_length - stride
    left_R = rows.store.num_tokens - overlap - row_R * stride
    return int(np.clip(left_R, 0, stride).sum())


def fill(batches: TrainBatches, num_rows: int = _ROWS_LOOKED_AT) -> dict[str, float]:
    """Share of the places of rows that hold something, over the first rows of a run.

    Returns:
      Side of a row -> share in (0, 1]: "inputs", "enc_inputs" beside an encoder, "targets" where
      only some positions predict; and "read", all places that the model reads.
    """
    real: dict[str, int] = {}
    places: dict[str, int] = {}
    for step in range(-(-num_rows // len(batches.rows))):
        for side, is_real in _sides(batches(step)).items():
            real[side] = real.get(side, 0) + int(np.count_nonzero(is_real))
            places[side] = places.get(side, 0) + is_real.size
    read = [side for side in real if side.endswith("inputs")]
    total = {"read": sum(real[s] for s in read) / sum(places[s] for s in read)}
    return total | {side: real[side] / places[side] for side in real}


def _sides(batch: Batch) -> dict[str, np.ndarray]:
    """Which places of each side hold something."""
    fields = {"inputs": "segment_ids", "enc_inputs": "enc_segment_ids"}
    if "predict_at" in batch:
        fields["targets"] = "weights"
    return {side: batch[field] > 0 for side, field in fields.items() if field in batch}
