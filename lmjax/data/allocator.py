"""Keeps memory that one batch or save has freed for the next.

A batch is made of arrays of some hundred kilobytes that live for microseconds. glibc gives such
memory back to the kernel at once and faults it in again, page by page: 40 % of the CPU time of
span corruption (64 rows of 512) went there, and nearly all of it comes back by these two settings.
They are what glibc would settle on by itself, but for the amount that is kept.

A save runs in many short-lived threads. glibc gives each an arena of its own, up to eight for every
core, and what is left over in one is of no use to another: a process of 440 MB grew by 4 % over 50
saves, and by 1 % with a few arenas for all.
"""

from __future__ import annotations

import ctypes
import functools

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names in malloc.h
_KEPT_BYTES = 1 << 27
_MAPPED_BYTES = 1 << 25  # larger arrays go back whole
_ARENAS = 2


@functools.cache
def keep_freed() -> None:
    """Once per process; does nothing where the C library is another one."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_ARENA_MAX, _ARENAS)
