"""Which of several hosts are alive: each keeps changing a file of its own, and reads the others'.

A host that stops, or whose machine does, leaves the others waiting in a collective that never ends
and does not say for whom. No clocks are compared: a file that changed once and then no more for so
many seconds of the reader's is that of a host without life. Those that have not begun yet, and what
an earlier run left, do not count.
"""

from __future__ import annotations

import json
import os
import socket
import time

from lmjax import paths
from lmjax.errors import UserError

_BEATS = 6  # within the time after which a host counts as silent


class Life:
    """This host's signs, and those of the others."""

    def __init__(self, folder: str, index: int, number: int, limit: float | None):
        """Shows nothing yet.

        Args:
          folder: that all hosts see; a file is written there for each.
          index, number: of this host, and of all.
          limit: seconds without a sign after which a host is silent; None: it never is.
        """
        self._folder, self._index, self._limit = folder, index, limit
        self._others = [other for other in range(number) if other != index]
        self._seen: dict[int, tuple[bytes | None, float, bool]] = {}
        self._count, self._next = 0, 0.0

    def silent(self) -> str | None:
        """Shows a sign of this host, and names another that shows none; None: all do."""
        now = time.monotonic()
        if not self._others or self._limit is None or now < self._next:
            return None
        self._next = now + self._limit / _BEATS
        try:
            self._show()
            return next(filter(None, (self._look(other, now) for other in self._others)), None)
        except (OSError, UserError):
            return None  # what is wrong with the folder, the next save will say

    def _show(self) -> None:
        self._count += 1
        said = {"host": socket.gethostname(), "process": os.getpid(), "sign": self._count}
        paths.write_bytes(self._file(self._index), json.dumps(said).encode())

    def _look(self, other: int, now: float) -> str | None:
        content = paths.read_bytes(self._file(other))
        if other not in self._seen:
            self._seen[other] = content, now, False
            return None
        before, since, lives = self._seen[other]
        if content != before:
            self._seen[other] = content, now, True
            return None
        if not lives or now - since <= self._limit:
            return None
        try:
            said = json.loads(content or b"")
            return f"host {other} (process {said['process']} on {said['host']})"
        except (ValueError, KeyError, TypeError):
            return f"host {other}"

    def _file(self, index: int) -> str:
        return paths.join(self._folder, f"{index}.alive")
