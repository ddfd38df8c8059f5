"""Adam and what others changed in it. All have the state of `optax.scale_by_adam`.

With m and v the moments, and m^ and v^ the same corrected for their start at zero:

- corrected:     m^ / (sqrt(v^) + eps)                    (Kingma and Ba 2015)
- uncorrected:   m / (sqrt(v) + eps)                      (BERT's released optimizer)
- RMS-scaled:    the same times max(RMS(parameter), 1e-3) (nanoT5: Nawrot 2023)
- stable:        the same, decay included, over max(1, RMS(g / max(sqrt(v^), eps)))
                 (StableAdamW: Wortsman et al. 2023, algorithm 2; ModernBERT)

Every RMS is that of one layer's parameter.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lmjax.config import OptimizerConfig
from lmjax.optim.dims import Dims, map_dims, rms, times_rms, tree_dims


def scale_by_adam(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adam, with or without bias correction."""
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon, mu_dtype=jnp.float32)
    if config.bias_correction:
        return adam

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, state = adam.update(grads, state, params)
        direction = lambda m, v: m / (jnp.sqrt(v) + config.epsilon)
        return jax.tree.map(direction, state.mu, state.nu), state

    return optax.GradientTransformation(adam.init, update)


def scale_by_parameter_rms(axes: Any) -> optax.GradientTransformation:
    """Updates in proportion to the parameters they change."""
    dims = tree_dims(axes)
    return optax.stateless(lambda updates, params: map_dims(times_rms, dims, updates, params))


def stable_adamw(
    config: OptimizerConfig, axes: Any, decay: optax.GradientTransformation
) -> optax.GradientTransformation:
    """AdamW whose whole step shrinks while gradients are larger than the moments expect."""
    dims, adam = tree_dims(axes), optax.chain(scale_by_adam(config), decay)

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = adam.update(grads, state, params)
        count, nu = state[0].count, state[0].nu
        correction = 1.0 - config.beta2 ** count.astype(jnp.float32)

        def clipped(d: Dims, u: jax.Array, g: jax.Array, v: jax.Array) -> jax.Array:
            expected = jnp.maximum(jnp.sqrt(v / correction), config.epsilon)
            return u / jnp.maximum(rms(d, g / expected), 1.0)

        return map_dims(clipped, dims, updates, grads, nu), state

    return optax.GradientTransformation(adam.init, update)
