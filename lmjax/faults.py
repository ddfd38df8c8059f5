"""Faults on purpose, for tests of what survives them: `kill@saving:20` and the like.

A process does what `LMJAX_FAULTS` says, and only if it was started with `--test_faults`; with the
variable and without the flag it refuses to start. Each fault is

    ACTION@POINT[:STEP][+SECONDS][*TIMES]

several are separated by commas. POINT is a place that calls `at`. It happens the first time that
the process comes there, at STEP or behind it, or the first TIMES. SECONDS later, that is in the
background, is possible for the signals alone.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmjax.errors import UserError

VARIABLE, FLAG = "LMJAX_FAULTS", "test_faults"

POINTS = (
    "prepare",  # before the data is opened
    "restore",  # before a checkpoint is read
    "compile",  # before the first step
    "data",  # before a batch is waited for
    "batch",  # a batch is there: `nan` and `spike` change it
    "step",  # a step has been launched, and callbacks are to come
    "evaluation",  # between two batches of an evaluation
    "saving",  # a save has begun, behind the training
    "landed",  # it is in its place, but has no sums yet
    "saved",  # all of it is there
)
_FORM = re.compile(r"(\w+)@(\w+)(?::(\d+))?(?:\+([\d.]+))?(?:\*(\d+))?")


def _signal(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _raise(number: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(number, f"{os.strerror(number)} (a fault on purpose)", "here")

    return act


_ACTIONS: dict[str, Callable[[], None]] = {
    "kill": _signal(signal.SIGKILL),
    "term": _signal(signal.SIGTERM),
    "int": _signal(signal.SIGINT),
    "hang": lambda: time.sleep(3600),
    "error": _raise(errno.EIO),
    "full": _raise(errno.ENOSPC),
    "nan": lambda: None,  # the caller does these, told by what `at` returns
    "spike": lambda: None,
}
_SIGNALS = ("kill", "term", "int")


@dataclass
class Fault:
    """One of them, as it was asked for."""

    action: str
    point: str
    step: int | None
    seconds: float
    left: int

    def is_now(self, point: str, step: int | None) -> bool:
        """Whether it happens at this point."""
        due = self.step is None or (step is not None and step >= self.step)
        return self.left > 0 and point == self.point and due

    def happen(self) -> None:
        """Does it, or sees to it that it is done later."""
        self.left -= 1
        act = _ACTIONS[self.action]
        if self.seconds:
            timer = threading.Timer(self.seconds, act)
            timer.daemon = True
            timer.start()
        else:
            act()


_armed: list[Fault] = []


def arm(allowed: bool) -> None:
    """Takes what the environment asks for.

    Args:
      allowed: whether the process was started with the flag.

    Raises:
      UserError: it was not, or what is asked for cannot be read.
    """
    text = os.environ.get(VARIABLE, "")
    if text and not allowed:
        raise UserError(
            f"{VARIABLE} is set ({text}), and would make this run fail on purpose; unset it, or "
            f"start a test with --{FLAG}"
        )
    _armed[:] = [_parse(part) for part in text.split(",") if part]


def _parse(text: str) -> Fault:
    found = _FORM.fullmatch(text)
    if not found or found[1] not in _ACTIONS or found[2] not in POINTS:
        raise UserError(
            f"{VARIABLE}: {text!r} is no fault; write ACTION@POINT[:STEP][+SECONDS][*TIMES] with "
            f"one of {', '.join(_ACTIONS)} at one of {', '.join(POINTS)}"
        )
    action, point, step, seconds, times = found.groups()
    if seconds and action not in _SIGNALS:
        raise UserError(f"{VARIABLE}: {text!r} cannot wait; +SECONDS is for {', '.join(_SIGNALS)}")
    step = None if step is None else int(step)
    return Fault(action, point, step, float(seconds or 0), int(times or 1))


def spoiled(batch: dict[str, np.ndarray], how: str) -> dict[str, np.ndarray]:
    """A batch whose loss is NaN, or whose gradient is a hundred times too long.

    Weights that add up to nothing are divided by one instead of their sum.
    """
    weights = batch["weights"]
    if how == "nan":
        return batch | {"weights": np.full_like(weights, np.nan)}
    sign = np.where(np.cumsum(weights > 0).reshape(weights.shape) % 2, 1, -1)
    return batch | {"weights": (100 * sign * weights).astype(weights.dtype)}


def at(point: str, step: int | None = None) -> str | None:
    """Lets happen what was asked for at this point; returns what the caller is to do itself."""
    left = None
    for fault in _armed:
        if fault.is_now(point, step):
            print(f"fault: {fault.action}@{point}:{step} {time.time():.3f}", file=sys.stderr)
            fault.happen()
            left = fault.action
    return left
