"""Keeps memory that one batch or save has freed for the next.

A batch is made of arrays of some hundred kilobytes that live for microseconds. glibc gives such
memory back to the kernel at once and faults it in again, page by page: 40 % of the CPU time of
span corruption (64 rows of 512) went there, and nearly all of it comes back by these two settings.
They are what glibc would settle on by itself, but for the amount that is kept.

A save runs in many short-lived threads. glibc gives each an arena of its own, up to eight for every
core, and what is left over in one is of no use to another; and Orbax leaves some kilobytes of every
save behind, which cut the room of its large arrays to pieces. A process of 430 MB grew by 4.4 %
over 50 saves, and by 1 to 2 %, then 0.5 %, with two arenas and pages of their own for large arrays.
(With one arena, steps of a small model were 6 % slower.)
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names in malloc.h
_KEPT_BYTES = 1 << 27
_MAPPED_BYTES = 1 << 25  # larger arrays go back whole
_MAPPED_BYTES_OF_SAVES = 1 << 20
_ARENAS = 2


@functools.cache
def keep_freed() -> None:
    """Once per process, and before it has threads."""
    _set(_MMAP_THRESHOLD, _MAPPED_BYTES)
    _set(_TRIM_THRESHOLD, _KEPT_BYTES)
    _set(_ARENA_MAX, _ARENAS)


def saving(going_on: bool) -> None:
    """While a save is going on, its large arrays get pages of their own, which go back whole."""
    _set(_MMAP_THRESHOLD, _MAPPED_BYTES_OF_SAVES if going_on else _MAPPED_BYTES)


def _set(name: int, value: int) -> None:
    """Does nothing where the C library is another one."""
    if (mallopt := _mallopt()) is not None:
        mallopt(name, value)


@functools.cache
def _mallopt() -> Callable[[int, int], int] | None:
    try:
        return ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return None
