"""What the checks cost that let a run survive faults, as a share of its steps.

- in every step: whether the update is finite, and parameters and moments that stay if it is not
  (`lmjax.train.guard`); timed in alternating blocks of updates with and without. (Of whole steps
  the difference cannot be seen: two equal programs differ by more, for where their memory lies.)
- in every step: the watchdog is told what the run is at (`lmjax.train.watchdog`);
- at every save: fingerprints of all arrays, and SHA-256 of all files. The latter are taken behind
  the training, and counted as if it stood still meanwhile.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from lmjax.bench.stepper import Stepper
from lmjax.config import Config
from lmjax.train import data as data_lib
from lmjax.train import fingerprint, guard, setup, sums
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.data import Stores
from lmjax.train.state import TrainState
from lmjax.train.step import TrainStep
from lmjax.train.watchdog import Watchdog

_READY = 8  # batches made beforehand
_BLOCK = 20  # updates
_TIMES = 5  # that what belongs to a save is timed
_BEATS = 10_000


@dataclass(frozen=True)
class Checks:
    """Seconds, but `rounds` and `num_steps`.

    Attributes:
      step: a training step with all checks.
      guard: what it takes in a step, the median over rounds.
      rounds: of blocks of updates with and without it.
      watchdog: what it takes in a step.
      fingerprint, sums: what they take at a save.
      num_steps: between two saves.
    """

    step: float
    guard: float
    rounds: int
    watchdog: float
    fingerprint: float
    sums: float
    num_steps: int

    @property
    def share(self) -> float:
        """Of all checks together, of the time of a step."""
        saves = (self.fingerprint + self.sums) / self.num_steps
        return (self.guard + self.watchdog + saves) / self.step

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"share": self.share}


def measure(config: Config, stores: Stores, seconds: float = 60.0) -> Checks:
    """Times the checks on training steps of a config, on all devices.

    Args:
      config: resolved.
      stores: its text.
      seconds: how long steps and updates are timed, compilation apart.
    """
    ids = setup.make_ids(config, stores.tokenizer)
    program = setup.make_program(config, ids=ids)
    made = data_lib.all_train_batches(config, stores, program.objective)
    tables = data_lib.open_data(config, stores, program.objective, program.eval_objective).tables
    batches = itertools.cycle([made(i) for i in range(_READY)])
    with program.context():
        stepper = Stepper(setup.make_steps(program, tables), program.init())
        stepper.block(batches, 1, 0.0)  # compiles
        rate = stepper.block(batches, 2, seconds / 2)
        updates = [
            _Updates(setup.make_steps(program, tables, judge).train_step, program.init())
            for judge in (guard.judge, _always)
        ]
        found, end = [], time.monotonic() + seconds / 2
        while time.monotonic() < end or not found:
            found.append([each.seconds() for each in updates])
        at_saves = _at_saves(stepper.state)
    return Checks(
        step=1 / rate,
        guard=statistics.median(with_it - without for with_it, without in found),
        rounds=len(found),
        watchdog=_watchdog(),
        fingerprint=at_saves[0],
        sums=at_saves[1],
        num_steps=config.checkpoint.every,
    )


class _Updates:
    """The second half of a step, again and again."""

    def __init__(self, step: TrainStep, state: TrainState):
        self._step, self._sums = step, step.zeros(state.params)
        self._state, _ = step.update(state, self._sums, False)  # compiles

    def seconds(self) -> float:
        """Of one, averaged over a block."""
        began = time.perf_counter()
        for _ in range(_BLOCK):
            self._state, _ = self._step.update(self._state, self._sums, False)
        jax.block_until_ready(self._state)
        return (time.perf_counter() - began) / _BLOCK


def _always(state: guard.Guard, loss: jax.Array, norm: jax.Array) -> tuple[bool, guard.Guard]:
    """A guard that lets every update pass, so that the compiler drops what it would keep."""
    return True, state


def _at_saves(state: TrainState) -> tuple[float, float]:
    """Seconds that the fingerprints and the sums of a state take."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        checkpoints.save(1, state, {})  # compiles the fingerprints
        checkpoints.close()
        return _seconds(lambda: fingerprint.of(state)), _seconds(lambda: sums.write(folder, 1))


def _seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _watchdog() -> float:
    """Seconds that a step spends on telling it: waiting for data, the step, a micro-batch."""
    watchdog = Watchdog({}, "", print)
    began = time.perf_counter()
    for _ in range(_BEATS):
        with watchdog.within("data"):
            pass
        watchdog.enter("step")
        watchdog.beat()
    return (time.perf_counter() - began) / _BEATS
