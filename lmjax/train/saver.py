"""When the state is saved, and what happens when a save fails.

A save that could not be written costs nothing but itself: the state is saved anew at a later step,
after a pause that grows, and the run ends only when that fails too, `ATTEMPTS` times in a row. A
full disk is no passing trouble and ends it at once; the checkpoint before is untouched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from lmjax import foreign
from lmjax.errors import UserError
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.console import logger
from lmjax.train.copied_checkpoints import CopiedCheckpoints
from lmjax.train.loop import due
from lmjax.train.state import TrainState

ATTEMPTS = 4
PAUSES = (1.0, 4.0, 16.0)  # seconds before the second attempt, the third, ...


class Saver:
    """A callback for every step of the loop, and `finish` behind it."""

    def __init__(
        self,
        checkpoints: Checkpoints | CopiedCheckpoints,
        save: Callable[[int, TrainState], None],
        *,
        every: int,
        last: int,
        start: int,
    ):
        """Saves to `checkpoints` by `save`, which gets (step, state) and starts the writing.

        Args:
          checkpoints: where it goes.
          save: (step, state); starts the writing.
          every, last: steps between saves, and the last of the run, which is saved too.
          start: the step that the run goes on from, which is saved already.
        """
        self._checkpoints, self._save = checkpoints, save
        self._every, self._last = every, last
        self._begun = self._landed = start
        self._wanted, self._failures, self._not_before = False, 0, 0.0

    def __call__(self, step: int, state: TrainState, metrics: dict[str, Any]) -> None:
        """Saves where a save is due or has to be made up for."""
        if self._checkpoints.failed():
            self._settle()
        self._wanted |= due(step, self._every, self._last)
        if self._wanted and time.monotonic() >= self._not_before and not _is_broken(state):
            self._begin(step, state)

    def finish(self, step: int, state: TrainState) -> int:
        """Brings the last state to disk; returns the newest step that is saved.

        That is `step`, unless its update was not finite: such a state is not saved.
        """
        self._settle()
        while not _is_broken(state) and self._landed < step:
            time.sleep(max(0.0, self._not_before - time.monotonic()))
            self._begin(step, state)
            self._settle()
        return self._landed

    def _begin(self, step: int, state: TrainState) -> None:
        try:
            self._save(step, state)
        except Exception as error:
            self._failed(error)
        else:
            self._wanted, self._begun = False, step

    def _settle(self) -> None:
        """Waits for the save on its way."""
        try:
            self._checkpoints.wait()
        except Exception as error:
            self._failed(error)
        else:
            self._failures, self._landed = 0, self._begun

    def _failed(self, error: Exception) -> None:
        """Sees to another attempt, or gives up."""
        self._failures += 1
        self._begun = self._landed
        if self._failures >= ATTEMPTS or any(map(foreign.is_full_disk, _chain(error))):
            raise error
        pause = PAUSES[min(self._failures, len(PAUSES)) - 1]
        said = str(error) if isinstance(error, UserError) else foreign.explain(error)
        logger.warning(
            f"a save to {self._checkpoints.name} failed "
            f"({said or f'{type(error).__name__}: {foreign.first_line(error)}'}); "
            f"trying again in {pause:.0f} s"
        )
        self._wanted, self._not_before = True, time.monotonic() + pause


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_broken(state: TrainState) -> bool:
    """Whether the last update was not finite (waits for the device)."""
    return int(state.guard["in_a_row"]) > 0
