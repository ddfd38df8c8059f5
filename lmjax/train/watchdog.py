"""Ends a run that hangs: a deadline for each thing it waits for.

A loader that never delivers, a worker that has died, a device or a disk that does not answer leave
a process that waits for ever and is paid for. The run says what it is at, `enter`, and shows life
within it, `beat`. A thread watches; when a deadline passes it writes the stacks of all threads into
the log and ends the process with `HUNG`. What was saved is untouched, and the same command
goes on from there.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from lmjax.exit_codes import HUNG, leave_at_once


class Watchdog:
    """Watches from `start` to `stop`; the thread that runs the training calls the rest."""

    def __init__(
        self,
        deadlines: Mapping[str, float | None],
        log: os.PathLike,
        say: Callable[[str], None],
        silent: Callable[[], str | None] = lambda: None,
    ):
        """Watches nothing yet.

        Args:
          deadlines: seconds by phase; None: that phase may take for ever.
          log: the file that the stacks are appended to.
          say: prints the line that explains the end.
          silent: names another host that shows no life, which ends this one, too (`Life.silent`).
        """
        self._deadlines, self._log, self._say = dict(deadlines), log, say
        self._silent = silent
        self._phase, self._since = "", time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    @property
    def phase(self) -> str:
        """What the run is at."""
        return self._phase

    def start(self, phase: str) -> None:
        """Begins to watch, in this phase."""
        self.enter(phase)
        self._thread.start()

    def stop(self) -> None:
        """Watches no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def enter(self, phase: str) -> None:
        """From now on the run is at something else."""
        self._phase, self._since = phase, time.monotonic()

    def blame(self) -> None:
        """Waits, after something that may be another host's end, until that is known to be silent.

        Which ends this process; otherwise it returns, and the trouble is this host's own.
        """
        if (limit := self._deadlines.get("host")) is not None:
            self.enter("the end of what has failed")
            time.sleep(1.5 * limit)

    def beat(self) -> None:
        """It is still at it, and alive."""
        self._since = time.monotonic()

    @contextlib.contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """At something else for the length of the block."""
        before = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def _watch(self) -> None:
        limits = [limit for limit in self._deadlines.values() if limit is not None]
        pause = min([1.0, *(limit / 4 for limit in limits)])
        while not self._ended.wait(pause):
            phase, since = self._phase, self._since
            limit = self._deadlines.get(phase)
            if limit is not None and time.monotonic() - since > limit:
                why = f"{phase} has taken longer than {limit:g} s"
                self._end(why, f"config.watchdog.{phase}")
            if (host := self._silent()) is not None:
                limit = self._deadlines["host"]
                why = f"{host} has shown no life for {limit:g} s, while this one was at: {phase}"
                self._end(why, "config.watchdog.host")

    def _end(self, why: str, limit: str) -> None:
        # Whatever hangs may hold locks that an orderly end would wait for, so there is none.
        with contextlib.suppress(OSError), open(self._log, "a", encoding="utf-8") as file:
            file.write(f"stacks of all threads, since {why}:\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        threading.Thread(target=self._say, args=(self._line(why, limit),), daemon=True).start()
        time.sleep(0.5)  # the console's lock may be held, too
        leave_at_once(HUNG)

    def _line(self, why: str, limit: str) -> str:
        return (
            f"the run hangs: {why}; the stacks of all threads are in {os.fspath(self._log)}. The "
            f"same command goes on from the last checkpoint; {limit} is the limit"
        )
