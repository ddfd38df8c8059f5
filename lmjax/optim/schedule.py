"""Learning-rate schedules: a linear warm-up, then a shape.

With w warm-up steps, D decay steps, f the final fraction and t the step (0 for the first update),
the rate is peak * t'/w during the warm-up (t' = t + 1, so the first update already learns), then,
with p = (t - w) / (D - w) clipped to [0, 1]:

- linear:   1 - (1 - f) p
- cosine:   f + (1 - f) (1 + cos(pi p)) / 2          (Loshchilov and Hutter 2017)
- rsqrt:    sqrt(h / max(t, h)), h the hold steps      (Vaswani et al. 2017; T5: w = 0, h = 10^4)
- constant: 1
- wsd:      1 until the last c of D, then 1 - (1 - f) sqrt(q), q the share of the cool-down done
            (warm-up, stable, decay: Hu et al. 2024; the 1-sqrt shape: Hägele et al. 2024)
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmjax.config import ScheduleConfig

Schedule = Callable[[jax.Array], jax.Array]


def make_schedule(config: ScheduleConfig, peak: float) -> Schedule:
    """Step (integer scalar) -> learning rate (float32 scalar)."""
    warmup, end, final = config.warmup_steps, config.decay_steps, config.final_fraction

    def progress(t: jax.Array, start: float) -> jax.Array:
        return jnp.clip((t - start) / max(end - start, 1), 0.0, 1.0)

    hold = config.hold_steps or max(warmup, 1)
    cooldown_start = max(end - config.cooldown_fraction * end, warmup)
    shapes = {
        "linear": lambda t: 1 - (1 - final) * progress(t, warmup),
        "cosine": lambda t: final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress(t, warmup))),
        "rsqrt": lambda t: jnp.sqrt(hold / jnp.maximum(t, hold)),
        "constant": lambda t: jnp.ones_like(t),
        "wsd": lambda t: 1 - (1 - final) * jnp.sqrt(progress(t, cooldown_start)),
    }
    shape = shapes[config.name]

    def schedule(step: jax.Array) -> jax.Array:
        t = jnp.asarray(step, jnp.float32)
        rising = (t + 1) / max(warmup, 1)
        return peak * jnp.where(t < warmup, rising, shape(t))

    return schedule
