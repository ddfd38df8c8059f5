"""How the residual stream lies on the devices between the blocks.

Shape suffixes: B rows, T length, D hidden_size.
"""

from __future__ import annotations

import math

import jax
from flax import linen as nn


def constrained(x_BTD: jax.Array) -> jax.Array:
    """x_BTD split by rows and, where the rules split "act_length", by positions.

    A length that does not divide over the devices stays whole: that of one token, when decoding.
    """
    whole = ("act_batch", None, "act_embed")
    by_length = ("act_batch", "act_length", "act_embed")
    axes = jax.tree.leaves(nn.logical_to_mesh_axes(by_length)[1])
    sizes = jax.sharding.get_abstract_mesh().shape
    divides = x_BTD.shape[1] % math.prod(sizes[axis] for axis in axes) == 0
    return nn.with_logical_constraint(x_BTD, by_length if divides else whole)
