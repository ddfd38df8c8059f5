"""Making a step of a run again: from the checkpoint before it, with all that can be seen in it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from lmjax import paths
from lmjax.batch import Batch
from lmjax.data import pipeline
from lmjax.errors import UserError
from lmjax.opening import Reading
from lmjax.replay import compare
from lmjax.replay.compare import Difference, Row
from lmjax.train import guard, loop, metrics
from lmjax.train.copied_checkpoints import finished
from lmjax.train.meta import versions
from lmjax.train.reporter import train_row
from lmjax.train.state import TrainState
from lmjax.train.step import Explained

LOOKED_BACK = 8  # steps before it whose gradients a step's are compared with


@dataclass(frozen=True)
class Step:
    """A step that was made again.

    Attributes:
      number: from 1.
      loss, grad_norm: its own, before clipping.
      made: whether its update was.
      row: what metrics.jsonl would keep of it, timings aside; None: nothing.
    """

    number: int
    loss: float
    grad_norm: float
    made: bool
    row: Row | None


@dataclass(frozen=True)
class Replayed:
    """A step and those before it.

    Attributes:
      start: step of the state that it began from.
      steps: start + 1 and on; the last is the one that was asked for.
      batch: of the last step, all rows.
      explained: the last step, from within.
      before: the same of a few steps before it.
      recorded: rows that the run has written of its training, of all steps.
      differences: of those between start and the last step.
      reasons: what is not as it was when the run wrote them.
    """

    start: int
    steps: tuple[Step, ...]
    batch: Batch
    explained: Explained
    before: tuple[Explained, ...]
    recorded: tuple[Row, ...]
    differences: tuple[Difference, ...]
    reasons: tuple[str, ...]

    @property
    def step(self) -> Step:
        """The one that was asked for."""
        return self.steps[-1]

    @property
    def compared(self) -> list[int]:
        """Steps of the recorded rows that were compared."""
        last = self.step.number
        return [row["step"] for row in self.recorded if self.start < row["step"] <= last]


def check(path: str, checkpoints: str, step: int | None, num_steps: int, every: int) -> None:
    """Refuses a step that the run in `path` has not made.

    Args:
      path, checkpoints: of the run, local or URLs.
      step: from the command line.
      num_steps, every: of the run, and from one row of metrics to the next.

    Raises:
      UserError: it is missing, below 1 or beyond.
    """
    if step is None:
        raise UserError("--step is missing; give --step=N, the step to replay, counted from 1")
    rows = metrics.read(paths.join(path, "metrics.jsonl"))
    last = max([0, *(row["step"] for row in rows), *finished(checkpoints)])
    # Steps behind the last row may have been made, though they, or updates not made, left none.
    limit = min(num_steps, last + max(every, guard.LIMIT))
    if step < 1:
        raise UserError(f"--step={step} is no step, the first is 1; take 1 to {last}")
    if step > limit:
        raise UserError(
            f"--step={step} lies beyond step {last}, the last that is recorded in {path}; take 1 "
            f"to {last}"
        )


def replay(
    run: Reading, step: int, tell: Callable[[int, Step], None] = lambda start, step: None
) -> Replayed:
    """Makes a step of a run again.

    Args:
      run: from `opening.reading`.
      step: from 1.
      tell: told the step of the state that it begins from, and every step that is made.

    Raises:
      UserError: the state to begin from is not to be had.
    """
    steps, found = [], {}
    looked = range(step - LOOKED_BACK, step + 1)
    with run.program.context():
        state, start, meta = run.state_before(step)
        for made, last, explained in _walk(run, state, start, step, looked):
            tell(start, made)
            steps.append(made)
            batch = last
            if explained is not None:
                found[made.number] = explained
    rows = metrics.read(paths.join(run.path, "metrics.jsonl"))
    recorded = tuple(row for row in rows if row["split"] == "train")
    mine = {made.number: made.row for made in steps}
    different = [
        difference
        for row in recorded
        if row["step"] in mine
        for difference in compare.differences(row, mine[row["step"]])
    ]
    why = compare.reasons(meta, run.program.hardware(), versions(), run.source.changes)
    explained = found.pop(step)
    before = tuple(found.values())
    return Replayed(
        start, tuple(steps), batch, explained, before, recorded, tuple(different), tuple(why)
    )


def _walk(
    run: Reading, state: TrainState, start: int, stop: int, explained: Container[int]
) -> Iterator[tuple[Step, Batch, Explained | None]]:
    """Steps start + 1 ... stop, their batches and, of some, what they are made of."""
    every, config = run.config.log.every, run.config
    batches = pipeline.iterate(run.data.train_batches(run.program), start, stop, 0)
    skipped = int(state.guard["skipped"])
    for number, batch in enumerate(batches, start + 1):
        inside = run.steps.explain(state, batch) if number in explained else None
        state, on_device = run.steps(state, batch, loop.due(number - 1, every, 0))
        of_step: dict[str, Any] = jax.device_get(on_device)
        before, skipped = skipped, int(of_step["guard"]["skipped"])
        row = train_row(
            number,
            of_step,
            exact_likelihood=run.program.objective.exact_likelihood,
            names=run.data.names,
            epochs=lambda step: run.data.epochs(step * config.train.global_batch_size),
        )
        loss, norm = float(of_step["loss"]), float(of_step["grad_norm"])
        yield Step(number, loss, norm, skipped == before, row), batch, inside
