"""Where a run goes on from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lmjax.errors import UserError
from lmjax.train import start
from lmjax.train.checkpoint import Checkpoints, DamagedError
from lmjax.train.console import logger
from lmjax.train.copied_checkpoints import CopiedCheckpoints, finished, reading
from lmjax.train.setup import Program
from lmjax.train.state import TrainState

_T = TypeVar("_T")


def newest_before(
    directory: str, step: int, program: Program
) -> tuple[TrainState, dict[str, Any]] | None:
    """The newest sound state of a folder before a step, and what its checkpoint says of itself.

    Nothing is written, and a run may be going on there; damaged checkpoints are told, and passed
    over. None: there is none.
    """
    for found in reversed([there for there in finished(directory) if there < step]):
        try:
            with reading(directory, found) as (checkpoints, _):
                return start.restore(checkpoints, found, program), checkpoints.meta(found)
        except DamagedError as error:
            logger.warning(f"{error}; looking for one before it")
    return None


class Restart:
    """The newest checkpoint that is what was saved.

    Damaged ones are told, and passed over. Nothing is renamed before a sound one has been found,
    and where there is none, the run does not begin again at step 0, which would overwrite what may
    still be saved.
    """

    def __init__(self, checkpoints: Checkpoints | CopiedCheckpoints):
        self.checkpoints = checkpoints
        self._left = sorted(checkpoints.steps())
        self._damaged: list[tuple[int, str]] = []

    def meta(self) -> dict[str, Any]:
        """What the newest checkpoint says of itself; empty where there is none."""
        return self._newest(self.checkpoints.meta) or {}

    def state(self, program: Program) -> tuple[TrainState, int] | None:
        """The newest sound state and its step; None: the run has none yet.

        Raises:
          UserError: all are damaged, or one that is sound cannot be read.
        """
        return self._newest(lambda step: (start.restore(self.checkpoints, step, program), step))

    def put_aside(self) -> None:
        """Renames the damaged ones, whose steps are about to be saved again; seals a sound one."""
        for step, _ in self._damaged:
            new = self.checkpoints.put_aside(step)
            logger.warning(f"{self.checkpoints.name}/{step} is now {new}")
        self._damaged.clear()
        if self._left:
            self.checkpoints.seal(self._left[-1])

    def _newest(self, read: Callable[[int], _T]) -> _T | None:
        while self._left:
            step = self._left[-1]
            try:
                return read(step)
            except DamagedError as error:
                self._damaged.append((step, str(error)))
                self._left.pop()
                if self._left:
                    logger.warning(f"{error}; going back to step {self._left[-1]}")
        if self._damaged:
            raise UserError(
                f"no checkpoint in {self.checkpoints.name} is sound: {self._damaged[0][1]}. "
                "Nothing was overwritten; give another --workdir to begin anew"
            )
        return None
