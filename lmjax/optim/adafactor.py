"""Adafactor as T5 was trained with it (Shazeer and Stern 2018; T5X's `adafactor.py`).

With g the gradient and t the step (from 1), per matrix of each layer:

    beta  = 1 - t^-decay_rate
    R, C  = beta (R, C) + (1 - beta) (mean over outputs, mean over inputs) of g^2 + 1e-30
    u     = g / sqrt(R C / mean(R))
    u     = u / max(1, RMS(u) / clip)
    delta = u * max(RMS(parameter), 1e-3)

Vectors, and matrices with a side below 128, keep the whole second moment. Differences to optax's
rule: what is a matrix and what are layers comes from the axis names, so a [layers, embed, heads,
head_dim] kernel is factored, and every RMS is that of one layer.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmjax.optim.dims import Dims, is_boxed, map_dims, rms, times_rms, tree_dims

_EPSILON_GRAD = 1e-30
_MIN_SIDE = 128


class Moment(NamedTuple):
    """Second moment of one parameter: factored (rows, columns) or whole; the other is unused."""

    rows: Any
    columns: Any
    whole: Any


class AdafactorState(NamedTuple):
    """Updates done, and a `Moment` per parameter."""

    count: jax.Array
    moments: Any


def scale_by_adafactor(
    axes: Any, *, decay_rate: float = 0.8, clip: float = 1.0
) -> optax.GradientTransformation:
    """The rule above, without the learning rate.

    Args:
      axes: tree of the parameters' logical axis names.
      decay_rate: exponent of the moment's decay.
      clip: largest RMS of an update, per layer.
    """
    dims = tree_dims(axes)

    def init(params: Any) -> AdafactorState:
        return AdafactorState(jnp.zeros((), jnp.int32), map_dims(_zeros, dims, params))

    def update(grads: Any, state: AdafactorState, params: Any) -> tuple[Any, AdafactorState]:
        count = state.count + 1
        beta = 1.0 - count.astype(jnp.float32) ** -decay_rate
        moments = map_dims(lambda d, g, m: _decayed(d, g, m, beta), dims, grads, state.moments)
        updates = map_dims(
            lambda d, g, p, m: _direction(d, g, p, m, clip), dims, grads, params, moments
        )
        return updates, AdafactorState(count, moments)

    return optax.GradientTransformation(init, update)


def _factored(dims: Dims, shape: tuple[int, ...]) -> bool:
    sides = [math.prod(shape[i] for i in side) for side in (dims.inputs, dims.outputs)]
    return dims.is_matrix and min(sides) >= _MIN_SIDE


def _zeros(dims: Dims, param: Any) -> Moment:
    """Zero moments that carry the axis names of the dims they keep, where the parameter does."""
    value = param.value if is_boxed(param) else param

    def kept(dropped: tuple[int, ...]) -> Any:
        left = [i for i in range(value.ndim) if i not in dropped]
        zeros = jnp.zeros([value.shape[i] for i in left], jnp.float32)
        if not is_boxed(param):
            return zeros
        return param.replace(value=zeros, names=tuple(param.names[i] for i in left))

    nothing = jnp.zeros((1,), jnp.float32)  # a checkpoint cannot hold an array of no elements
    if _factored(dims, value.shape):
        return Moment(kept(dims.outputs), kept(dims.inputs), nothing)
    return Moment(nothing, nothing, kept(()))


def _decayed(dims: Dims, grad: jax.Array, moment: Moment, beta: jax.Array) -> Moment:
    squared = jnp.square(grad) + _EPSILON_GRAD
    blend = lambda old, new: beta * old + (1 - beta) * new
    if not _factored(dims, grad.shape):
        return moment._replace(whole=blend(moment.whole, squared))
    return moment._replace(
        rows=blend(moment.rows, squared.mean(dims.outputs)),
        columns=blend(moment.columns, squared.mean(dims.inputs)),
    )


def _direction(
    dims: Dims, grad: jax.Array, param: jax.Array, moment: Moment, clip: float
) -> jax.Array:
    if _factored(dims, grad.shape):
        rows = jnp.expand_dims(moment.rows, dims.outputs)
        columns = jnp.expand_dims(moment.columns, dims.inputs)
        mean = rows.mean(dims.inputs, keepdims=True)
        update = grad * jax.lax.rsqrt(rows / mean) * jax.lax.rsqrt(columns)
    else:
        update = grad * jax.lax.rsqrt(moment.whole)
    update /= jnp.maximum(1.0, rms(dims, update) / clip)
    return times_rms(dims, update, param)
