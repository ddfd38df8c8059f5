"""Several hosts, one process each: how they decide alike.

Every process runs the same program on the same inputs. Wherever one of them sees something that the
others may not (a signal, how much memory it has), what it sees is put to all of them, and all go by
the answer. With one process nothing here communicates.
"""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_BITS = 31  # of a word


def index() -> int:
    """Of this process."""
    return jax.process_index()


def number() -> int:
    """Of processes."""
    return jax.process_count()


def wait(name: str) -> None:
    """Returns when every process is here."""
    if number() > 1:
        multihost_utils.sync_global_devices(name)


def agreed(value: int) -> int:
    """What process 0 has of a number that each would find for itself."""
    if number() == 1:
        return value
    words = multihost_utils.broadcast_one_to_all(_words(np.array([value])))
    return int(_whole(np.asarray(words))[0])


def gathered(fields: list[np.ndarray]) -> list[np.ndarray]:
    """Values [rows] of all hosts' rows, in the order of the first field."""
    if number() == 1:
        return fields
    words = multihost_utils.process_allgather(np.stack([_words(each) for each in fields]))
    first, *others = _whole(np.asarray(words)).swapaxes(0, 1).reshape(len(fields), -1)
    order = np.argsort(first, kind="stable")
    return [each[order] for each in (first, *others)]


def _words(values: np.ndarray) -> np.ndarray:
    """int64 of at least 0 -> two int32 in a last dim: JAX has no 64 bits by itself."""
    values = np.asarray(values, np.int64)
    return np.stack([values >> _BITS, values & ((1 << _BITS) - 1)], axis=-1).astype(np.int32)


def _whole(words: np.ndarray) -> np.ndarray:
    """The way back."""
    words = words.astype(np.int64)
    return (words[..., 0] << _BITS) + words[..., 1]


class Vote:
    """Whether any process has said yes, asked once a step and answered a step later.

    The answer travels behind the step that is running, so that no device waits for it; and all
    processes get it at the same step.
    """

    def __init__(self) -> None:
        if number() == 1:
            return
        mesh = Mesh(np.array(jax.devices()), ("all",))
        self._each = NamedSharding(mesh, PartitionSpec("all"))
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._any = jax.jit(lambda said: said.max(), out_shardings=everywhere)
        self._asked: jax.Array | None = None

    def __call__(self, mine: bool) -> bool:
        """Puts in what this process says now; returns what came of the last time."""
        if number() == 1:
            return mine
        answer = self._asked is not None and bool(self._asked)
        local = np.full(jax.local_device_count(), mine, np.int32)
        self._asked = self._any(jax.make_array_from_process_local_data(self._each, local))
        return answer
