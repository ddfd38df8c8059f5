"""What a save costs a run: how long the loop stands still, and how much slower it goes meanwhile.

Blocks of steps alternate: one begins a save and ends when that has landed, the other makes as many
steps without. The difference is what the save took of the run, and counts once every
`checkpoint.every` steps.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from lmjax.bench.stepper import Stepper
from lmjax.config import Config
from lmjax.train import data as data_lib
from lmjax.train import setup
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.data import Stores

_READY = 4  # batches made beforehand


@dataclass(frozen=True)
class Saving:
    """Seconds, medians over rounds.

    Attributes:
      step: of a step without a save.
      stands_still: while a save copies the state off the device.
      extra: that a save takes of the run in all, slower steps included.
      landed: from the beginning of a save until it is on disk.
      num_bytes: of the state.
      num_steps: between two saves.
      rounds: that these are medians of.
    """

    step: float
    stands_still: float
    extra: float
    landed: float
    num_bytes: int
    num_steps: int
    rounds: int

    @property
    def share(self) -> float:
        """Of the time of a run."""
        return self.extra / (self.num_steps * self.step + self.extra)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"share": self.share}


def measure(config: Config, stores: Stores, seconds: float = 60.0) -> Saving:
    """Times saves of a config's state between its steps, for about so long and at least once.

    Args:
      config: resolved.
      stores: its text.
      seconds: how long in all, compilation apart.
    """
    program = setup.make_program(config, ids=setup.make_ids(config, stores.tokenizer))
    made = data_lib.all_train_batches(config, stores, program.objective)
    tables = data_lib.open_data(config, stores, program.objective, program.eval_objective).tables
    batches = itertools.cycle([made(i) for i in range(_READY)])
    found = []
    with program.context(), tempfile.TemporaryDirectory() as folder:
        stepper = Stepper(setup.make_steps(program, tables), program.init())
        num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(stepper.state))
        checkpoints = Checkpoints(Path(folder), keep=1)
        checkpoints.save(0, stepper.state, {})  # compiles the fingerprints
        checkpoints.wait()
        stepper.block(batches, 2, 0.0)
        end = time.monotonic() + seconds
        while not found or time.monotonic() < end:
            began, steps = time.perf_counter(), 0
            checkpoints.save(len(found) + 1, stepper.state, {})
            stands_still = time.perf_counter() - began
            while not steps or not checkpoints.landed():
                stepper.block(batches, 1, 0.0)
                steps += 1
            landed = time.perf_counter() - began
            step = 1 / stepper.block(batches, steps, 0.0)
            found.append((step, stands_still, landed - steps * step, landed))
        checkpoints.close()
    step, stands_still, extra, landed = (
        statistics.median(each) for each in zip(*found, strict=True)
    )
    every = config.checkpoint.every
    return Saving(step, stands_still, max(extra, 0.0), landed, num_bytes, every, len(found))
