"""Optimizers: named optax chains over the summed gradient's mean.

The learning rate is not baked into a closure over steps: the schedule reads the chain's own count,
which is part of the optimizer state and so of every checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lmjax.config import OptimizerConfig, WeightDecay
from lmjax.optim.adafactor import scale_by_adafactor
from lmjax.optim.adam import scale_by_adam, scale_by_parameter_rms, stable_adamw
from lmjax.optim.muon import scale_by_muon_or_adam
from lmjax.optim.policy import match, name_of
from lmjax.optim.schedule import Schedule

# Decay shrinks matrices; a bias, a norm's scale or a learned position has nothing to shrink towards
# zero for (BERT's and GPT-3's recipes leave out biases and norms).
_SPARED = r".*(/bias|_bias|/scale|/position|/table)"


def weight_decay_policy(weight_decay: float | WeightDecay) -> WeightDecay:
    """A single number becomes the default policy: biases, norms and positions are spared."""
    if isinstance(weight_decay, float | int):
        return ((_SPARED, 0.0), (".*", float(weight_decay)))
    return weight_decay


def add_decayed_weights(policy: WeightDecay) -> optax.GradientTransformation:
    """Adds coefficient * parameter to each update, the coefficient by the parameter's name."""

    def update(updates, state, params=None):
        decayed = jax.tree_util.tree_map_with_path(
            lambda path, u, p: (
                u + match(policy, name_of(path), "optimizer.weight_decay") * p.astype(u.dtype)
            ),
            updates,
            params,
        )
        return decayed, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


# (config, axis names, decay) -> the rule with its decoupled decay (Loshchilov and Hutter 2019).
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": lambda config, axes, decay: optax.chain(scale_by_adam(config), decay),
    "adamw_rms": lambda config, axes, decay: optax.chain(
        scale_by_adam(config), scale_by_parameter_rms(axes), decay
    ),
    "stable_adamw": stable_adamw,
    "adafactor": lambda config, axes, decay: optax.chain(scale_by_adafactor(axes), decay),
    "lion": lambda config, axes, decay: optax.chain(
        optax.scale_by_lion(config.beta1, config.beta2, mu_dtype=jnp.float32), decay
    ),
    "muon": lambda config, axes, decay: optax.chain(scale_by_muon_or_adam(config, axes), decay),
}


def make_optimizer(
    config: OptimizerConfig, schedule: Schedule, axes: Any
) -> optax.GradientTransformation:
    """Clipping by global norm, the named rule with its weight decay, then the learning rate.

    Args:
      config: the named rule and its constants.
      schedule: step -> learning rate.
      axes: tree of the parameters' logical axis names, as `dims.axis_names` gives it.
    """
    decay = add_decayed_weights(weight_decay_policy(config.weight_decay))
    clip = (
        optax.identity()
        if config.clip_norm is None
        else optax.clip_by_global_norm(config.clip_norm)
    )
    return optax.chain(
        clip,
        OPTIMIZERS[config.name](config, axes, decay),
        optax.scale_by_learning_rate(schedule),
    )
