"""The worst steps since the last row of metrics.

A row is a mean over many steps, in which one bad batch is lost. So the state carries the largest
loss and the largest gradient norm of a single step, and which steps those were; a resumed run has
the rows of one that was not interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Peaks = dict[str, jax.Array]

NAMES = ("loss", "grad_norm")


def zeros() -> Peaks:
    """Before any step: `value` float32 [2] and `step` int32 [2], by `NAMES`; step 0 is none."""
    return {"value": jnp.zeros(len(NAMES), jnp.float32), "step": jnp.zeros(len(NAMES), jnp.int32)}


def updated(
    peaks: Peaks,
    values: Mapping[str, jax.Array],
    step: jax.Array,
    made: jax.Array,
    fresh: jax.Array,
) -> Peaks:
    """The peaks with a step's values among them.

    Args:
      peaks: before it.
      values: float32 scalars of the step, by `NAMES`.
      step: its number.
      made: whether its update was made; of others the guard tells.
      fresh: whether it is the first behind a row.
    """
    value = jnp.stack([values[name] for name in NAMES])
    last = jnp.where(fresh, 0, peaks["step"])
    higher = made & ((last == 0) | (value > peaks["value"]))
    return {
        "value": jnp.where(higher, value, jnp.where(last == 0, 0.0, peaks["value"])),
        "step": jnp.where(higher, step, last),
    }


def fields(peaks: Mapping[str, Any]) -> dict[str, Any]:
    """Peaks on the host -> `max_loss`, `max_loss_step`, ... of a row."""
    row: dict[str, Any] = {}
    for name, value, step in zip(NAMES, peaks["value"], peaks["step"], strict=True):
        if step:
            row |= {f"max_{name}": float(value), f"max_{name}_step": int(step)}
    return row
