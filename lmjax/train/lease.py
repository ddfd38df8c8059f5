"""A lock in an object store: an object that only one process may create, and that shows life.

`URL/.lock` says which process holds it. It is created only where there is none (a precondition of
the store: generation 0 on GCS, If-None-Match on S3), and a thread writes it anew every few
seconds. A second process watches it: when the holder shows life, it is refused; when it shows none
for `STALE` seconds, or was a process of this machine that has ended, the lock is taken over.

No clocks are compared. Two processes that take over at the same moment are told apart by the token
that stands in the object afterwards: whoever does not find its own stops before its next save.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from lmjax import paths
from lmjax.errors import UserError

BEAT, STALE = 10.0, 60.0  # seconds between signs of life; without one, after which it is taken over


class Lease:
    """Holds `URL/.lock` from construction to `release`."""

    def __init__(self, url: str, *, log: Callable[[str], None]):
        """Raises UserError where a living process holds it, or the store cannot be written."""
        self._url, self._file = url, paths.join(url, ".lock")
        self._mine = {
            "token": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
        }
        if not self._create():
            self._wait_until_stale(log)
            self._write()
        self.check()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show_life, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises UserError if another process has taken the lock over."""
        held = self._read()
        if held is None or held["token"] != self._mine["token"]:
            who = "nobody" if held is None else f"process {held['pid']} on {held['host']}"
            raise UserError(
                f"workdir {self._url}: its lock was taken over by {who} while this process showed "
                "no life; stopped without saving. Run the same command again when that one is done"
            )

    def release(self) -> None:
        """Takes the lock away, where it is still this process's."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(UserError):
            self.check()
            fs, path = paths.filesystem(self._file)
            with paths.errors(self._file):
                fs.rm_file(path)

    def _content(self) -> bytes:
        return json.dumps({**self._mine, "time": time.time()}).encode()

    def _create(self) -> bool:
        fs, path = paths.filesystem(self._file)
        with paths.errors(self._file):
            try:
                fs.pipe_file(path, self._content(), mode="create")
            except Exception:
                # Stores differ in how they say "it is there", so look whether it is.
                if self._read() is None:
                    raise
                return False
        return True

    def _write(self) -> None:
        paths.write_bytes(self._file, self._content())

    def _read(self) -> dict[str, Any] | None:
        content = paths.read_bytes(self._file)
        try:
            return None if content is None else json.loads(content)
        except ValueError:
            return {"token": None, "host": "an unknown host", "machine": None, "pid": 0}

    def _wait_until_stale(self, log: Callable[[str], None]) -> None:
        first, began = self._read(), time.monotonic()
        if first is None or _has_ended(first):
            return
        log(
            f"workdir {self._url} is locked by process {first['pid']} on {first['host']}; "
            f"waiting up to {STALE:.0f} s for a sign of life"
        )
        while time.monotonic() - began < STALE:
            time.sleep(min(BEAT / 4, 1.0))
            now = self._read()
            if now is None:
                return
            if now != first:
                raise UserError(
                    f"workdir {self._url} is in use by process {now['pid']} on {now['host']}; "
                    "wait for it to end, stop it, or give another --workdir"
                )

    def _show_life(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(UserError):  # the next save, or the next beat, will say so
                self.check()
                self._write()


def _machine() -> str | None:
    """What tells machines and containers apart, as far as process ids go; None where unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _has_ended(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that runs no more."""
    if holder["machine"] is None or holder["machine"] != _machine():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
