"""The model: embedding, stack, final norm; then a head.

`trunk` and `head` are apart so that a loss may see only the predicted positions, in chunks if it
likes, and that scoring, embedding and generation need no other model.

Shape suffixes: B rows, T length, P predicted positions, S cache slots, D hidden_size,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.config import ModelConfig
from lmjax.nn import heads, stack
from lmjax.nn.attention import Tokens
from lmjax.nn.embed import Embed
from lmjax.nn.norm import Norm


class Cache(NamedTuple):
    """What decoding keeps of the tokens it has seen; a pytree that goes in and comes out.

    Attributes:
      layers: keys and values of every layer (see `stack.init_caches`).
      tokens: segment ids and positions of the slots, int32 [B, S] each; empty slots are padding.
      length: int32 scalar, number of filled slots.
    """

    layers: stack.LayerCaches
    tokens: Tokens
    length: jax.Array


class Model(nn.Module):
    """A decoder or encoder over one sequence.

    Attributes:
      config: shape of the network.
      vocab_size: rows of the embedding, V.
      dtype: compute type; parameters, norms, softmax and logits are float32.
      remat, unroll: see `stack.Stack`.
    """

    config: ModelConfig
    vocab_size: int
    dtype: jnp.dtype = jnp.float32
    remat: stack.Remat = "none"
    unroll: int = 1

    def setup(self):
        config = self.config
        self.embed = Embed(config, self.vocab_size, self.dtype)
        self.embed_dropout = nn.Dropout(config.dropout)
        self.stack = stack.Stack(config, stack.layout(config), self.dtype, self.remat, self.unroll)
        if config.norm_placement == "pre":
            self.final_norm = Norm(config.norm, config.norm_epsilon, config.use_bias, self.dtype)
        if not config.tie_embeddings:
            self.lm_head = heads.LMHead(config, self.vocab_size, self.dtype)

    def __call__(self, batch: Mapping[str, jax.Array], *, deterministic: bool = True) -> jax.Array:
        """Logits of the predicted positions, float32 [B, P, V]; see `lmjax.batch` for the fields."""
        hidden_BTD, _ = self.trunk(batch, deterministic=deterministic)
        return self.head(heads.predicted(hidden_BTD, batch))

    def trunk(
        self,
        batch: Mapping[str, jax.Array],
        *,
        deterministic: bool = True,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Hidden states.

        Args:
          batch: int32 `inputs`, `segment_ids`, `positions`, [B, T] each.
          deterministic: False applies dropout and needs an RNG named 'dropout'.
          cache: of earlier calls (or `init_cache`'s); the batch's tokens follow on those in it,
            and their positions and segments must too.

        Returns:
          (hidden_BTD in `dtype`, the cache with the batch in it or None).
        """
        queries = keys = Tokens(batch["segment_ids"], batch["positions"])
        layers = length = None
        if cache is not None:
            layers, keys, length = cache
            keys = jax.tree.map(
                lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, length, axis=1),
                keys,
                queries,
            )
        x_BTD = self.embed(batch["inputs"], batch["positions"])
        x_BTD = self.embed_dropout(x_BTD, deterministic=deterministic)
        x_BTD = nn.with_logical_constraint(x_BTD, ("act_batch", "act_length", "act_embed"))
        x_BTD, layers = self.stack(
            x_BTD, queries, keys, layers, length, deterministic=deterministic
        )
        if self.config.norm_placement == "pre":
            x_BTD = self.final_norm(x_BTD)
        if cache is not None:
            cache = Cache(layers, keys, length + batch["inputs"].shape[1])
        return x_BTD, cache

    def head(self, hidden_BPD: jax.Array) -> jax.Array:
        """Logits of hidden states, float32 [B, P, V]."""
        logits_BPV = (
            self.embed.attend(hidden_BPD)
            if self.config.tie_embeddings
            else self.lm_head(hidden_BPD)
        )
        return nn.with_logical_constraint(logits_BPV, ("act_batch", "act_length", "act_vocab"))

    def init_cache(self, batch_size: int, max_length: int) -> Cache:
        """An empty cache for `max_length` tokens; needs no parameters, so call it unbound."""
        empty_BS = jnp.zeros((batch_size, max_length), jnp.int32)
        layers = stack.init_caches(
            self.config, stack.layout(self.config), batch_size, max_length, self.dtype
        )
        return Cache(layers, Tokens(empty_BS, empty_BS), jnp.int32(0))
