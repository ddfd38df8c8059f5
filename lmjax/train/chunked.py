"""Cross-entropy over a vocabulary, some positions at a time: the logits are never there as a whole.

A step that makes all logits holds [B, P, V] float32 twice, with their gradient: at a vocabulary of
50,000 more than everything else. Here a loop goes over chunks of C positions of every row; each
makes its logits, its loss and, since a weighted sum needs no more, its gradients at once, so
nothing is computed twice (as in Hsu et al. 2024, "Liger Kernel", section 3.2). Rows of different
devices add up their matrix gradients apart, and are summed once behind the loop.

Shape suffixes: B rows, P predicted positions, D hidden_size, V vocabulary; S devices that rows are
split over, b = B / S; N chunks of C positions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.nn.heads import Projected, logits

_MATRIX = ("vocab", None)  # whole along D, as a loop should not gather it again and again
_FEATURES = ("act_batch", None, None)  # and these along P
_SHARDS = ("act_batch", None, "vocab")


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def cross_entropy(
    projected: Projected,
    targets_BP: jax.Array,
    weights_BP: jax.Array,
    z_loss: float,
    chunk: int,
    num_shards: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The weighted sum of what each prediction costs.

    Args:
      projected: what the logits are the product of.
      targets_BP: int32 ids.
      weights_BP: float32.
      z_loss: weight of log(Z)^2 in the sum.
      chunk: C; the last one is padded.
      num_shards: S, which divides B.

    Returns:
      (sum(weights (nats + z_loss log(Z)^2)), nats_BP, whether each target has the highest logit,
      bool [B, P]). Only the first has a gradient.
    """
    return _loop(projected, targets_BP, weights_BP, z_loss, chunk, num_shards, slopes=False)[0]


def _forward(projected, targets_BP, weights_BP, z_loss, chunk, num_shards):
    return _loop(projected, targets_BP, weights_BP, z_loss, chunk, num_shards, slopes=True)


def _backward(z_loss, chunk, num_shards, slopes, given):
    scale = given[0]
    return jax.tree.map(lambda slope: (scale * slope).astype(slope.dtype), slopes), None, None


cross_entropy.defvjp(_forward, _backward)


def _loop(
    projected: Projected,
    targets_BP: jax.Array,
    weights_BP: jax.Array,
    z_loss: float,
    chunk: int,
    num_shards: int,
    *,
    slopes: bool,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Projected | None]:
    """What `cross_entropy` returns, and the gradients by what is in `projected`."""
    features_BPD, matrix_VD, bias_V = projected
    dtype, num_positions = features_BPD.dtype, targets_BP.shape[1]
    pieces = partial(_pieces, chunk=chunk, num_shards=num_shards)
    unpiece = partial(_unpiece, num_positions=num_positions)
    matrix = nn.with_logical_constraint(matrix_VD.astype(dtype), _MATRIX)
    features_BPD = nn.with_logical_constraint(features_BPD, _FEATURES)

    def step(sums: Any, part: Any) -> Any:
        x_SbCD, targets_SbC, weights_SbC = part
        logits_SbCV = logits(Projected(x_SbCD, matrix, bias_V))
        logits_SbCV = nn.with_logical_constraint(
            logits_SbCV, ("act_batch", None, None, "act_vocab")
        )
        highest_SbC = jnp.max(logits_SbCV, axis=-1)
        exp_SbCV = jnp.exp(logits_SbCV - highest_SbC[..., None])
        total_SbC = jnp.sum(exp_SbCV, axis=-1)
        log_z_SbC = highest_SbC + jnp.log(total_SbC)
        target_SbC = jnp.take_along_axis(logits_SbCV, targets_SbC[..., None], axis=-1)[..., 0]
        nats_SbC = log_z_SbC - target_SbC
        cost = jnp.sum(weights_SbC * (nats_SbC + z_loss * jnp.square(log_z_SbC)))
        found = (nats_SbC, target_SbC >= highest_SbC)
        if not slopes:
            return (sums[0] + cost, None), found
        by_z_SbC = weights_SbC * (1 + 2 * z_loss * log_z_SbC) / total_SbC
        is_target_SbCV = targets_SbC[..., None] == jnp.arange(matrix.shape[0])
        slope_SbCV = exp_SbCV * by_z_SbC[..., None]
        slope_SbCV -= jnp.where(is_target_SbCV, weights_SbC[..., None], 0.0)
        narrow_SbCV = slope_SbCV.astype(dtype)
        dx_SbCD = jnp.einsum("sbcv,vd->sbcd", narrow_SbCV, matrix)
        # In this order the narrow side is the one that is turned around.
        of_matrix_SDV = jnp.einsum(
            "sbcd,sbcv->sdv", x_SbCD, narrow_SbCV, preferred_element_type=jnp.float32
        )
        of_bias_SV = None if bias_V is None else jnp.sum(slope_SbCV, axis=(1, 2))
        of_matrix_SDV = nn.with_logical_constraint(of_matrix_SDV, _SHARDS)
        more = jax.tree.map(jnp.add, sums[1], (of_matrix_SDV, of_bias_SV))
        return (sums[0] + cost, more), (*found, dx_SbCD)

    nothing = None
    if slopes:
        zeros = partial(jnp.zeros, dtype=jnp.float32)
        zeros_SDV = zeros((num_shards, *matrix.shape[::-1]))
        zeros_SDV = nn.with_logical_constraint(zeros_SDV, _SHARDS)
        nothing = (zeros_SDV, None if bias_V is None else zeros((num_shards, *bias_V.shape)))
    parts = (pieces(features_BPD), pieces(targets_BP), pieces(weights_BP))
    (cost, sums), found = jax.lax.scan(step, (jnp.float32(0), nothing), parts)
    answer = (cost, unpiece(found[0]), unpiece(found[1]))
    if not slopes:
        return answer, None
    of_matrix_DV, of_bias_V = jax.tree.map(lambda of_shards: jnp.sum(of_shards, axis=0), sums)
    of_matrix_VD = nn.with_logical_constraint(of_matrix_DV.T, ("vocab", "embed"))
    return answer, Projected(unpiece(found[2]), of_matrix_VD.astype(matrix_VD.dtype), of_bias_V)


def _pieces(value_BP: jax.Array, chunk: int, num_shards: int) -> jax.Array:
    """[B, P, ...] -> [N, S, b, C, ...], zeros behind the last position."""
    B, P, *rest = value_BP.shape
    num_chunks = -(-P // chunk)
    padding = [(0, 0), (0, num_chunks * chunk - P)] + [(0, 0)] * len(rest)
    padded = jnp.pad(value_BP, padding)
    parts = padded.reshape(num_shards, B // num_shards, num_chunks, chunk, *rest)
    return jnp.moveaxis(parts, 2, 0)


def _unpiece(value_NSbC: jax.Array, num_positions: int) -> jax.Array:
    """The way back."""
    N, S, b, C, *rest = value_NSbC.shape
    return jnp.moveaxis(value_NSbC, 0, 2).reshape(S * b, N * C, *rest)[:, :num_positions]
