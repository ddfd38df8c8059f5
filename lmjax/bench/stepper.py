"""Training steps timed in blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import jax

from lmjax.batch import Batch
from lmjax.train.setup import Steps
from lmjax.train.state import TrainState


class Stepper:
    """Trains on, whatever the batches."""

    def __init__(self, steps: Steps, state: TrainState) -> None:
        self._steps, self.state = steps, state

    def block(self, batches: Iterator[Batch], min_steps: int, min_seconds: float) -> float:
        """Steps a second of a block."""
        num_steps, behind, began = 0, None, time.perf_counter()
        while num_steps < min_steps or time.perf_counter() - began < min_seconds:
            self.state, metrics = self._steps(self.state, next(batches), False)
            jax.block_until_ready(behind)  # one step behind, as the training loop
            behind, num_steps = metrics["loss"], num_steps + 1
        jax.block_until_ready(self.state)
        return num_steps / (time.perf_counter() - began)
