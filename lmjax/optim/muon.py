"""Muon (Jordan 2024): momentum made orthogonal, for the matrices inside the layers.

Embeddings, the output projection, norms and biases follow Adam. A layer's matrix is the product of
its inputs and outputs by the axis names, so a query kernel [layers, embed, heads, head_dim] is one
embed x (heads head_dim) matrix per layer, and a stacked norm scale is none. Updates are scaled by
0.2 sqrt(max(inputs, outputs)), which gives them the RMS of Adam's (Liu et al. 2025, section 2.2):
one learning rate and one weight decay do for both.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from lmjax.config import OptimizerConfig
from lmjax.optim.adam import scale_by_adam
from lmjax.optim.dims import Dims, tree_dims

_ADAM_RMS = 0.2


def scale_by_muon_or_adam(config: OptimizerConfig, axes: Any) -> optax.GradientTransformation:
    """The rule above, without decay and learning rate."""
    dims = tree_dims(axes)
    is_muon = lambda d: d.is_matrix and not d.table
    masked = jax.tree.map(lambda d: d if is_muon(d) else optax.MaskedNode(), dims)
    numbers = jax.tree.map(lambda d: MuonDimensionNumbers(d.inputs, d.outputs), masked)

    def scaled(d: Dims, update: jax.Array) -> jax.Array:
        sides = [math.prod(update.shape[i] for i in side) for side in (d.inputs, d.outputs)]
        return update * _ADAM_RMS * math.sqrt(max(sides))

    muon = optax.chain(
        scale_by_muon(beta=config.momentum, weight_dimension_numbers=numbers),
        optax.stateless(lambda updates, _: jax.tree.map(scaled, masked, updates)),
    )
    labels = jax.tree.map(lambda d: "muon" if is_muon(d) else "adam", dims)
    return optax.partition({"muon": muon, "adam": scale_by_adam(config)}, labels)
