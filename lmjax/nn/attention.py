"""Multi-head attention whose mask is formed from segment ids and positions, where it is used.

softmax(q k^T / sqrt(K)) v (Vaswani et al. 2017, equation 1), with grouped key/value heads
(Ainslie et al. 2023, "GQA"): query head h reads key/value head h // (H / G).

A query sees a key of its own segment, under a causal spec at no later position, under a window
within half of it on either side. Positions restart in every segment, so both tests are right for
packed rows and for rows that go on from a cache. Padding is segment 0: it sees only padding.

Shape suffixes: B rows, T query length, S key length, D hidden_size, H heads, G key/value heads,
R = H / G query heads per key/value head, K head width.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.config import ModelConfig
from lmjax.nn import linear

# Finite, so that a row without any visible key is a mean and not 0/0, and large enough that the
# exponential of a masked score is exactly 0 in every other row.
_MASKED = -1e30


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """What a layer's attention may look at; static, so that a kernel can be chosen by it.

    Attributes:
      causal: only keys at no later position.
      window: only keys with |query - key position| <= window // 2; None: any distance.
    """

    causal: bool
    window: int | None = None


class Tokens(NamedTuple):
    """What the mask needs to know of a sequence: int32 [B, T] each."""

    segment_ids: jax.Array
    positions: jax.Array


class KeyValues(NamedTuple):
    """Keys and values of one layer, in the compute type (its cache, or just computed)."""

    k_BSGK: jax.Array
    v_BSGK: jax.Array


def visible(spec: AttentionSpec, queries: Tokens, keys: Tokens) -> jax.Array:
    """Boolean [B, T, S]: which keys each query sees."""
    see_BTS = queries.segment_ids[:, :, None] == keys.segment_ids[:, None, :]
    distance_BTS = queries.positions[:, :, None] - keys.positions[:, None, :]
    if spec.causal:
        see_BTS &= distance_BTS >= 0
    if spec.window is not None:
        see_BTS &= jnp.abs(distance_BTS) <= spec.window // 2
    return see_BTS


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _softmax(s: jax.Array, see: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Softmax of float32 scores over the visible keys, in `dtype`.

    Its own way back, (dp - sum(p dp)) p, needs only p: masked scores get their gradient of 0 from
    p = 0, so that neither mask nor scores are kept.
    """
    return jax.nn.softmax(jnp.where(see, s, _MASKED), axis=-1).astype(dtype)


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
    dropout: nn.Dropout,
) -> jax.Array:
    """Mixes values by attention; the one place where a kernel is chosen.

    Args:
      spec: what may be seen.
      q_BTHK: queries, already divided by sqrt(K).
      kv: keys and values.
      queries, keys: segment ids and positions of either side.
      dropout: applied to the attention probabilities.

    Returns:
      o_BTHK in q's type; the softmax is in float32.
    """
    B, T, H, K = q_BTHK.shape
    G = kv.k_BSGK.shape[2]
    q_BTGRK = q_BTHK.reshape(B, T, G, H // G, K)
    s_BGRTS = jnp.einsum(
        "btgrk,bsgk->bgrts", q_BTGRK, kv.k_BSGK, preferred_element_type=jnp.float32
    )
    see_BTS = visible(spec, queries, keys)
    p_BGRTS = dropout(_softmax(s_BGRTS, see_BTS[:, None, None], q_BTHK.dtype))
    return jnp.einsum("bgrts,bsgk->btgrk", p_BGRTS, kv.v_BSGK).reshape(B, T, H, K)


class Attention(nn.Module):
    """Projections around `attend`."""

    config: ModelConfig
    spec: AttentionSpec
    dtype: jnp.dtype
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        queries: Tokens,
        keys: Tokens,
        cache: KeyValues | None = None,
        length: jax.Array | None = None,
    ) -> tuple[jax.Array, KeyValues | None]:
        """Self-attention, over the cache where there is one.

        Args:
          x_BTD: inputs.
          queries: of x.
          keys: of x, or of the whole cache with x already in it.
          cache: [B, S, G, K] keys and values of earlier calls; those of x are written at `length`.
          length: int32 scalar, how many slots of the cache are filled.

        Returns:
          (y_BTD in `dtype`, the cache with x in it or None).
        """
        config = self.config
        heads, kv_heads, width = config.num_heads, config.kv_heads, config.head_width
        project = partial(
            linear.Linear,
            kernel_init=linear.normal_init(config),
            use_bias=config.use_bias,
            dtype=self.dtype,
        )
        q_axes, kv_axes = ("embed", "heads", "head_dim"), ("embed", "kv_heads", "head_dim")
        q_BTHK = project((heads, width), q_axes, name="query")(x_BTD) * width**-0.5
        kv = KeyValues(
            project((kv_heads, width), kv_axes, name="key")(x_BTD),
            project((kv_heads, width), kv_axes, name="value")(x_BTD),
        )
        if cache is not None:
            kv = cache = jax.tree.map(
                lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, length, axis=1),
                cache,
                kv,
            )
        dropout = nn.Dropout(config.dropout, deterministic=self.deterministic)
        o_BTHK = attend(self.spec, q_BTHK, kv, queries, keys, dropout)
        y_BTD = linear.Linear(
            features=(config.hidden_size,),
            axes=("heads", "head_dim", "embed"),
            kernel_init=linear.residual_init(config),
            use_bias=config.use_bias,
            dtype=self.dtype,
            name="output",
        )(o_BTHK)
        return y_BTD, cache
