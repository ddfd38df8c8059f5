"""Attention as plain products and a softmax, which XLA compiles for every device.

Shape suffixes as in `lmjax.nn.attention`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lmjax.nn.kernels.spec import AttentionSpec, Dropout, KeyValues, Tokens
from lmjax.nn.position import alibi_slopes

# Finite, so that a row without any visible key is a mean and not 0/0, and large enough that the
# exponential of a masked score is exactly 0 in every other row.
MASKED = -1e30


def visible(spec: AttentionSpec, queries: Tokens, keys: Tokens) -> jax.Array:
    """Boolean [B, T, S]: which keys each query sees."""
    see_BTS = queries.segment_ids[:, :, None] == keys.segment_ids[:, None, :]
    distance_BTS = queries.positions[:, :, None] - keys.positions[:, None, :]
    if spec.causal:
        see_BTS &= distance_BTS >= 0
    if spec.window is not None:
        see_BTS &= jnp.abs(distance_BTS) <= spec.window // 2
    return see_BTS


def distance(queries: Tokens, keys: Tokens) -> jax.Array:
    """Absolute distance of each query from each key, in positions: float32 [B, 1, 1, T, S]."""
    distance_BTS = queries.positions[:, :, None] - keys.positions[:, None, :]
    return jnp.abs(distance_BTS)[:, None, None].astype(jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _softmax(s: jax.Array, see: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Softmax of float32 scores over the visible keys, in `dtype`.

    Its own way back, (dp - sum(p dp)) p, needs only p: masked scores get their gradient of 0 from
    p = 0, so that neither mask nor scores are kept.
    """
    return jax.nn.softmax(jnp.where(see, s, MASKED), axis=-1).astype(dtype)


def _softmax_forward(s, see, dtype):
    p = _softmax(s, see, dtype)
    return p, p


def _softmax_backward(dtype, p, dp):
    p, dp = p.astype(jnp.float32), dp.astype(jnp.float32)
    return p * (dp - (p * dp).sum(-1, keepdims=True)), None


_softmax.defvjp(_softmax_forward, _softmax_backward)


def attend(
    spec: AttentionSpec,
    q_BTHK: jax.Array,
    kv: KeyValues,
    queries: Tokens,
    keys: Tokens,
    bias_1HTS: jax.Array | None,
    dropout: Dropout | None,
) -> jax.Array:
    """As `dispatch.attend`; it can do everything."""
    B, T, H, K = q_BTHK.shape
    G = kv.k_BSGK.shape[2]
    q_BTGRK = q_BTHK.reshape(B, T, G, H // G, K)
    s_BGRTS = jnp.einsum(
        "btgrk,bsgk->bgrts", q_BTGRK, kv.k_BSGK, preferred_element_type=jnp.float32
    )
    if bias_1HTS is not None:
        s_BGRTS += bias_1HTS.reshape(1, G, H // G, *bias_1HTS.shape[2:])
    if spec.alibi:
        s_BGRTS -= alibi_slopes(H).reshape(G, H // G, 1, 1) * distance(queries, keys)
    see_BTS = visible(spec, queries, keys)
    p_BGRTS = _softmax(s_BGRTS, see_BTS[:, None, None], q_BTHK.dtype)
    if dropout is not None:
        p_BGRTS = dropout.of(p_BGRTS)
    return jnp.einsum("bgrts,bsgk->btgrk", p_BGRTS, kv.v_BSGK).reshape(B, T, H, K)
