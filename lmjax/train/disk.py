"""Whether there is room for checkpoints, asked before a run and before every save."""

from __future__ import annotations

import os
import shutil
from typing import Any

import jax

from lmjax import paths
from lmjax.errors import UserError
from lmjax.train.console import size


def num_bytes(abstract: Any) -> int:
    """Bytes of all arrays of a state, from their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract))


def require(directory: str, needed: int, what: str) -> None:
    """Refuses to go on where a local folder has not the room for what will be written there.

    Args:
      directory: local, or a URL, of whose room nothing is known.
      needed: bytes.
      what: takes them, in words.

    Raises:
      UserError: there are fewer; says how many.
    """
    if paths.is_remote(directory):
        return
    there = directory
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{directory}: {what} would take {size(needed)} ({needed:,} bytes), and the disk is "
            f"full but for {size(free)}: No space left on device; free some space, lower "
            "config.checkpoint.keep or give a --workdir elsewhere"
        )
