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

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.model_config import ModelConfig
from lmjax.nn import linear
from lmjax.nn import norm as norms
from lmjax.nn.kernels.dispatch import attend
from lmjax.nn.kernels.spec import AttentionSpec, Dropout, KeyValues, Tokens
from lmjax.nn.position import rotate


class Memory(NamedTuple):
    """What cross-attention looks at: the encoder's result.

    Attributes:
      hidden_BSD: None: keys and values were made of it already and are in the cache.
      tokens: of the encoder's inputs.
    """

    hidden_BSD: jax.Array | None
    tokens: Tokens


class Context(NamedTuple):
    """What all layers of a stack share; a pytree, broadcast over the scan.

    Attributes:
      queries: of the inputs.
      keys: of the inputs, or of the whole cache with the inputs already in it.
      bias_1HTS: added to the scores of self-attention, float32; None: nothing.
      length: int32 scalar, how many slots of the cache are filled; None: there is no cache.
      memory: None where there is no cross-attention.
    """

    queries: Tokens
    keys: Tokens
    bias_1HTS: jax.Array | None = None
    length: jax.Array | None = None
    memory: Memory | None = None


class Kept(NamedTuple):
    """Keys and values that are kept for decoding, in the order in which products read them.

    In the order of `KeyValues`, each step would have to turn all of them around.
    """

    k_BGSK: jax.Array
    v_BGKS: jax.Array


def to_keep(kv: KeyValues) -> Kept:
    """The same in the other order."""
    return Kept(jnp.moveaxis(kv.k_BSGK, 1, 2), jnp.moveaxis(kv.v_BSGK, 1, 3))


def put(kept: Kept, new: Kept, slot: jax.Array) -> Kept:
    """What is kept, with new ones from a slot on; of one layer, or of layers [n, ...]."""
    update, last = jax.lax.dynamic_update_slice_in_dim, kept.k_BGSK.ndim - 1
    return Kept(
        update(kept.k_BGSK, new.k_BGSK, slot, last - 1),
        update(kept.v_BGKS, new.v_BGKS, slot, last),
    )


def _among(kept: Kept, new: Kept | None, slot: jax.Array | None) -> KeyValues:
    """As `put` (None: nothing new), in the order of `KeyValues`."""
    if new is not None and new.k_BGSK.shape[2] == 1:
        # A choice becomes one with the scan's slicing; an update would copy everything once more.
        new_S = jnp.arange(kept.k_BGSK.shape[2]) == slot
        k_BGSK = jnp.where(new_S[:, None], new.k_BGSK, kept.k_BGSK)
        kept = Kept(k_BGSK, jnp.where(new_S, new.v_BGKS, kept.v_BGKS))
    elif new is not None:
        kept = put(kept, new, slot)
    return KeyValues(jnp.moveaxis(kept.k_BGSK, 2, 1), jnp.moveaxis(kept.v_BGKS, 3, 1))


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
        source_BSD: jax.Array | None,
        context: Context,
        kept: Kept | None = None,
    ) -> tuple[jax.Array, Kept | None]:
        """Attention of x over a source, which is x itself or the encoder's result.

        Args:
          x_BTD: inputs.
          source_BSD: what keys and values are made of; None: of nothing, all of them are `kept`.
          context: tokens, bias and cache length; its queries are of x, its keys of the source (or
            of the whole cache with the source in it).
          kept: keys and values of earlier calls; those of the source take their place among them
            at `context.length`.

        Returns:
          (y_BTD in `dtype`, keys and values of the source alone, to be kept; None: there is none).
        """
        config = self.config
        heads, width = config.num_heads, config.head_width
        project = self._project
        scale = width**-0.5
        # Unscaled scores want queries that start smaller by what is not divided by later.
        init_scale = 1.0 if config.scale_attention or config.init != "fan_in" else scale
        q_BTHK = project(
            (heads, width),
            ("embed", "heads", "head_dim"),
            linear.kernel_init(config, config.hidden_size, init_scale),
            name="query",
        )(x_BTD)
        kv = None if source_BSD is None else self._keys_values(source_BSD)
        if config.qk_norm != "none":
            q_BTHK = self._normalised(q_BTHK, "query_norm")
            if kv is not None:
                kv = kv._replace(k_BSGK=self._normalised(kv.k_BSGK, "key_norm"))
        if self.spec.rope is not None:  # of self-attention, whose source are the queries' tokens
            turn = partial(rotate, self.spec.rope, positions_BT=context.queries.positions)
            q_BTHK, kv = turn(q_BTHK), kv._replace(k_BSGK=turn(kv.k_BSGK))
        if config.scale_attention:
            q_BTHK = q_BTHK * scale
        new = None if kv is None else to_keep(kv)
        if kept is not None:
            kv = _among(kept, new, context.length)
        dropout = None
        if config.dropout and not self.deterministic:
            dropout = Dropout(config.dropout, self.make_rng("dropout"))
        o_BTHK = attend(
            self.spec, q_BTHK, kv, context.queries, context.keys, context.bias_1HTS, dropout
        )
        y_BTD = project(
            (config.hidden_size,),
            ("heads", "head_dim", "embed"),
            linear.residual_init(config, heads * width),
            name="output",
        )(o_BTHK)
        return y_BTD, new

    @property
    def _project(self) -> Callable[..., linear.Linear]:
        config = self.config
        return partial(linear.Linear, use_bias=config.attention_has_bias, dtype=self.dtype)

    def _keys_values(self, source_BSD: jax.Array) -> KeyValues:
        config = self.config
        project = partial(
            self._project,
            (config.kv_heads, config.head_width),
            ("embed", "kv_heads", "head_dim"),
            linear.kernel_init(config, config.hidden_size),
        )
        return KeyValues(project(name="key")(source_BSD), project(name="value")(source_BSD))

    def _normalised(self, x_BTHK: jax.Array, name: str) -> jax.Array:
        config = self.config
        norm = norms.make(config, self.dtype, name)
        if config.qk_norm == "head":
            return norm(x_BTHK)
        return norm(x_BTHK.reshape(*x_BTHK.shape[:2], -1)).reshape(x_BTHK.shape)
