"""How a process ends, for scripts that start it again."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import NoReturn

DONE = 0
ERROR = 1  # the last line says cause and fix
PREEMPTED = 75  # stopped by a signal, nothing lost: run the same command again
HUNG = 124  # the watchdog ended it: run the same command again
INTERRUPTED = 130

_SHOW_CURSOR = b"\x1b[?25h"  # which a progress bar hides


def leave_at_once(code: int) -> NoReturn:
    """Ends the process where an orderly end might wait for ever, and its worker processes."""
    for process in multiprocessing.active_children():
        process.kill()
    sys.stdout.flush()
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR)
    os._exit(code)
