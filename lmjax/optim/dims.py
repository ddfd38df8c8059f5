"""What the dims of a parameter are to an optimizer: stacked layers, inputs, outputs.

Read from the logical axis names that every parameter gets where it is made, never from `ndim`: a
stacked norm scale [layers, norm] is a vector per layer, and a query kernel
[layers, embed, heads, head_dim] is a matrix per layer with embed inputs and heads x head_dim
outputs. A head is a pair of dims; whatever else is left is one dim each, inputs first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_HEADS = ("heads", "kv_heads")
# Tables that are looked up by one of their dims, and the projections onto vocabulary and classes.
_TABLES = ("vocab", "positions", "token_types", "relative_buckets", "labels")


_SMALLEST_RMS = 1e-3  # Shazeer and Stern 2018, epsilon_2; a zero parameter must be able to start


@dataclass(frozen=True)
class Dims:
    """Indices of a parameter's dims.

    Attributes:
      layers: those over which it is a stack of parameters.
      inputs: of a matrix; empty for a vector.
      outputs: of a matrix, or all of a vector.
      table: a matrix that is a table of embeddings, or the output projection.
    """

    layers: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: bool = False

    @property
    def is_matrix(self) -> bool:
        return bool(self.inputs)

    @property
    def of_one(self) -> tuple[int, ...]:
        """All dims of a single layer's parameter."""
        return self.inputs + self.outputs


def dims_of(names: Sequence[str | None]) -> Dims:
    """Dims of a parameter with these logical axis names.

    Raises:
      ValueError: more than two groups of dims in one layer.
    """
    layers = tuple(i for i, name in enumerate(names) if name == "layers")
    groups: list[tuple[int, ...]] = []
    for i, name in enumerate(names):
        if name == "head_dim" and names[i - 1] in _HEADS:
            groups[-1] += (i,)
        elif i not in layers:
            groups.append((i,))
    if len(groups) > 2:
        raise ValueError(f"a parameter with axes {tuple(names)} is neither vector nor matrix")
    inputs, outputs = groups if len(groups) == 2 else ((), groups[0])
    return Dims(layers, inputs, outputs, table=any(name in _TABLES for name in names))


def tree_dims(axes: Any) -> Any:
    """Tree of the parameters' axis names -> tree of their `Dims`."""
    return jax.tree.map(dims_of, axes, is_leaf=lambda x: isinstance(x, tuple))


def map_dims(f: Callable, dims: Any, *trees: Any) -> Any:
    """`jax.tree.map` over dims and the parameter (or what else there is of it) in each tree."""
    return jax.tree.map(f, dims, *trees, is_leaf=lambda x: isinstance(x, Dims))


def rms(dims: Dims, x: jax.Array) -> jax.Array:
    """Root mean square of each layer's parameter, with kept dims."""
    return jnp.sqrt(jnp.square(x).mean(dims.of_one, keepdims=True))


def norm(dims: Dims, x: jax.Array) -> jax.Array:
    """Euclidean norm of each layer's parameter: a scalar, or [layers]."""
    return jnp.sqrt(jnp.square(x).sum(dims.of_one))


def times_rms(dims: Dims, update: jax.Array, param: jax.Array) -> jax.Array:
    """An update in proportion to each layer's parameter, which counts as no smaller than 1e-3."""
    return update * jnp.maximum(rms(dims, param), _SMALLEST_RMS)


def axis_names(named_params: Any) -> Any:
    """Tree of boxed parameters (as a module makes them) -> tree of their axis names."""
    return jax.tree.map(lambda box: box.names, named_params, is_leaf=is_boxed)


def is_boxed(x: Any) -> bool:
    """Whether a leaf still carries its axis names."""
    return isinstance(x, nn.LogicallyPartitioned)
