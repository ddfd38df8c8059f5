"""The training loop: batch, step, callbacks.

A step is launched, and only then are the numbers of the one before it read: the device never waits
for the host. What happens around the steps (reports, evaluation, saves) is handed in as callbacks
that fire by one rule, `due`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lmjax.train.state import TrainState


class StoppedError(Exception):
    """Raised by batches, or by a train step that has not touched the state, to end the loop."""


def due(step: int, every: int, last: int) -> bool:
    """Whether something that happens every so many steps, and at the last, happens now."""
    return step % every == 0 or step == last


@dataclass(frozen=True)
class Every:
    """Calls `fn(step, state, metrics)` after each `every`-th step and after the last."""

    every: int
    fn: Callable[[int, TrainState, dict[str, Any]], None]


def run(
    state: TrainState,
    batches: Iterator[Any],
    train_step: Callable[[int, TrainState, Any], tuple[TrainState, dict[str, Any]]],
    callbacks: Sequence[Every],
    *,
    start: int,
    stop: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[TrainState, int]:
    """Runs steps start + 1 ... stop, or until `interrupted` says so or a step gives up.

    Returns:
      The state and the number of the last step done.
    """
    step = start
    while step < stop and not interrupted():
        try:
            state, metrics = train_step(step + 1, state, next(batches))
        except StoppedError:
            break
        step += 1
        for callback in callbacks:
            if due(step, callback.every, stop):
                callback.fn(step, state, metrics)
    return state, step
