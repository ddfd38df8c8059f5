"""Keeps memory that one batch has freed for the next.

A batch is made of arrays of some hundred kilobytes that live for microseconds. glibc gives such
memory back to the kernel at once and faults it in again, page by page: 40 % of the CPU time of
span corruption (64 rows of 512) went there, and nearly all of it comes back by these two settings.
They are what glibc would settle on by itself, but for the amount that is kept.
"""

from __future__ import annotations

import ctypes
import functools

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names in malloc.h
_KEPT_BYTES = 1 << 27
_MAPPED_BYTES = 1 << 25  # larger arrays go back whole


@functools.cache
def keep_freed() -> None:
    """Once per process; does nothing where the C library is another one."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
