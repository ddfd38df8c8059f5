"""SIGTERM (a preemption) and Ctrl-C: how a run leaves, whatever it is at.

While it trains, a signal is only remembered: the step that runs ends, is saved, and the process
leaves. Where nothing would be lost (preparing, restoring, waiting for data) the wait itself is
given up by an exception. The first step is compiled in native code, which no Python handler
interrupts, and which does not always survive an exception on its way through: there the process is
ended, by a thread if need be, since there is nothing to save yet. A second signal
ends the process at once, as a kill would, whatever it waits for; a save is whole or not there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from lmjax.exit_codes import INTERRUPTED, PREEMPTED, leave_at_once
from lmjax.train.console import logger
from lmjax.train.loop import StoppedError

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_PATIENCE = 2.0  # seconds that Python gets to leave by itself


class Stop:
    """Takes the signals between `__enter__` and `__exit__`; use it in the main thread."""

    def __init__(self, *, alone: bool = True) -> None:
        """`alone`: no other process waits for what this one does; else a step is never given up."""
        self._alone = alone
        # Called before the process is ended from here.
        self.before_leaving: Callable[[], None] = lambda: None
        self._received = False
        self._at_once = self._nothing_to_lose = self._in_native_code = False
        self._waiting, self._waking = socket.socketpair()
        self._waking.setblocking(False)

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._handle) for number in _NUMBERS}
        self._wakeup = signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._wait, name="stop", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._waking.close()  # which ends the thread
        self._thread.join()
        self._waiting.close()

    def __bool__(self) -> bool:
        """Whether a signal has come."""
        return self._received

    @property
    def gives_up(self) -> bool:
        """Whether a signal has come that ends what is going on, before it is done."""
        return self._received and self._alone

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises `StoppedError` where the code is; one that came before, too."""
        if not self._alone:
            yield
            return
        self._at_once = True
        try:
            if self._received:
                raise StoppedError
            yield
        finally:
            self._at_once = False

    @contextlib.contextmanager
    def nothing_to_lose(self) -> Iterator[None]:
        """As `at_once`, and a process that is deaf to it is ended soon, with `PREEMPTED`."""
        self._nothing_to_lose = True
        try:
            with self.at_once():
                yield
        finally:
            self._nothing_to_lose = False

    @contextlib.contextmanager
    def in_native_code(self) -> Iterator[None]:
        """As `nothing_to_lose`, but a signal raises nothing inside: it ends the process."""
        self._in_native_code = True
        try:
            with self.nothing_to_lose():
                yield
        finally:
            self._in_native_code = False

    def _handle(self, number: int, frame: Any) -> None:
        if self._received:
            os.write(
                sys.stderr.fileno(),
                b"error: interrupted a second time, and left without waiting; run the same command "
                b"again\n",
            )
            self._leave(INTERRUPTED)
        self._received = True
        logger.warning(
            f"{signal.Signals(number).name}: stopping" + " and saving" * (not self._at_once)
        )
        if self._at_once and self._in_native_code:
            self._leave(PREEMPTED)
        if self._at_once:
            raise StoppedError

    def _wait(self) -> None:
        while self._waiting.recv(1):  # a byte for each signal, even while Python is not running
            if self._nothing_to_lose:
                threading.Event().wait(_PATIENCE)
                if self._nothing_to_lose:
                    self._leave(PREEMPTED)

    def _leave(self, code: int) -> NoReturn:
        with contextlib.suppress(Exception):
            self.before_leaving()
        leave_at_once(code)
