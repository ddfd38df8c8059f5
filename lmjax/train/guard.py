"""Which updates are made: no non-finite one, and on request no spike.

A step whose loss or gradient is not finite leaves parameters, moments and window as they are, and
is counted. `optax.apply_if_finite` does that too, but makes the update once its limit is passed;
here the run ends after `LIMIT` in a row, and nothing is saved while the last step was one of them.

With `train.skip_spikes` a step is left out as well when its loss or gradient norm lies more than
`SIGMAS` standard deviations above the mean of the last `WINDOW` updates. That bends the optimizer
and is in no published recipe, so it is off unless asked for. `LIMIT` spikes in a row are no spike
but a new level, and the window starts anew. All of it is part of the state, so that a resumed run
judges as one that was not interrupted.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

LIMIT = 10  # steps in a row
WINDOW = 128
SIGMAS = 6.0

Guard = dict[str, jax.Array]
# As `judge` below.
Judge = Callable[[Guard, jax.Array, jax.Array], tuple[jax.Array, Guard]]


def zeros(skip_spikes: bool) -> Guard:
    """What is known at step 0: int32 counts, and the float32 [WINDOW]s of the spike rule."""
    guard = {name: jnp.zeros((), jnp.int32) for name in ("skipped", "in_a_row")}
    if not skip_spikes:
        return guard
    guard |= {name: jnp.zeros((), jnp.int32) for name in ("spikes_in_a_row", "seen")}
    return guard | {name: jnp.zeros((WINDOW,), jnp.float32) for name in ("losses", "norms")}


def judge(guard: Guard, loss: jax.Array, norm: jax.Array) -> tuple[jax.Array, Guard]:
    """Whether a step with this loss and gradient norm is to be made, and the guard after it.

    Args:
      guard: of the steps before; whether it has windows says whether spikes are skipped.
      loss, norm: float32 scalars.

    Returns:
      A bool scalar and the next guard.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    in_a_row = jnp.where(finite, 0, guard["in_a_row"] + 1)
    if "seen" not in guard:
        skipped = guard["skipped"] + jnp.where(finite, 0, 1)
        return finite, {"skipped": skipped, "in_a_row": in_a_row}

    is_spike = finite & (guard["seen"] >= WINDOW)
    is_spike &= _is_far(guard["losses"], loss) | _is_far(guard["norms"], norm)
    is_new_level = guard["spikes_in_a_row"] + 1 >= LIMIT
    made = finite & (~is_spike | is_new_level)
    seen = jnp.where(is_spike & is_new_level, 0, guard["seen"])
    place = seen % WINDOW
    windows = {
        name: jnp.where(made, guard[name].at[place].set(value), guard[name])
        for name, value in (("losses", loss), ("norms", norm))
    }
    return made, {
        "skipped": guard["skipped"] + jnp.where(made, 0, 1),
        "in_a_row": in_a_row,
        "spikes_in_a_row": jnp.where(
            finite, jnp.where(made, 0, guard["spikes_in_a_row"] + 1), guard["spikes_in_a_row"]
        ),
        "seen": jnp.where(made, seen + 1, seen),
        **windows,
    }


def _is_far(window: jax.Array, value: jax.Array) -> jax.Array:
    return value > jnp.mean(window) + SIGMAS * jnp.std(window)
