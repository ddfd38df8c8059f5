"""How fast batches are made: windows alone, and windows, objective and all.

Rates are per core: tokens over the CPU seconds of this process (threads included), so they do not
depend on how many cores happen to be free.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmjax.data.pipeline import TrainBatches
from lmjax.data.windows import Windows
from lmjax.noise import RowNoise

# Tokens per second and core to reach, by objective; of one that is not here, the least of them.
TARGETS = {"clm": 5e6, "mlm": 2e6, "span_corruption": 1e6}


@dataclass(frozen=True)
class InputRates:
    """Raw tokens per CPU second, medians over blocks of steps."""

    objective: str
    read: float
    corrupt: float
    batch: float
    target: float

    def as_dict(self) -> dict[str, float | str]:
        return {
            "objective": self.objective,
            "read_tokens_per_core_second": self.read,
            "objective_tokens_per_core_second": self.corrupt,
            "batch_tokens_per_core_second": self.batch,
            "target_tokens_per_core_second": self.target,
        }


def measure(batches: TrainBatches, name: str, seconds: float = 6.0) -> InputRates:
    """Times reading alone, the objective alone, and whole batches, in alternating blocks."""
    objective, rows = batches.objective, batches.sources[0]
    rng = np.random.default_rng(0)
    num_rows = len(batches.rows)
    index = rng.integers(0, len(rows), num_rows)
    windows = Windows(rows.store, objective.window_length, objective.window_stride)
    tokens, documents = windows.read(index % len(windows))
    row_noise = RowNoise(0, np.zeros_like(index), index)

    def read(i: int) -> None:
        windows.read(rng.integers(0, len(windows), num_rows))

    jobs: dict[str, Callable[[int], object]] = {
        "read": read,
        "corrupt": lambda i: objective(tokens, documents, row_noise),
        "batch": batches,
    }
    raw_tokens = num_rows * objective.window_stride
    rates: dict[str, list[float]] = {job: [] for job in jobs}
    end, step = time.monotonic() + seconds, 0
    while time.monotonic() < end or not rates["batch"]:
        for job, fn in jobs.items():
            began = time.process_time()
            done = 0
            while (spent := time.process_time() - began) < 0.2:
                fn(step)
                step, done = step + 1, done + 1
            rates[job].append(done * raw_tokens / spent)
    medians = {job: statistics.median(values) for job, values in rates.items()}
    return InputRates(name, **medians, target=TARGETS.get(name, min(TARGETS.values())))
