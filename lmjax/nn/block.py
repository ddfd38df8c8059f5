"""One transformer block: attention, then an MLP, each around the residual stream.

Pre-norm (Radford et al. 2019): x + f(norm(x)). Post-norm (Vaswani et al. 2017): norm(x + f(x)).

Shape suffixes: B rows, T length, D hidden_size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.config import ModelConfig
from lmjax.nn.attention import Attention, AttentionSpec, KeyValues, Tokens
from lmjax.nn.mlp import MLP
from lmjax.nn.norm import Norm


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """What may differ from one block of a model to the next."""

    attention: AttentionSpec


class Block(nn.Module):
    """Attention and MLP."""

    config: ModelConfig
    spec: BlockSpec
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
        """As `Attention.__call__`: (x_BTD, new cache)."""
        config = self.config
        attention = Attention(
            config, self.spec.attention, self.dtype, self.deterministic, name="attention"
        )

        def attend(h_BTD: jax.Array) -> jax.Array:
            nonlocal cache
            y_BTD, cache = attention(h_BTD, queries, keys, cache, length)
            return y_BTD

        x_BTD = self._residual(x_BTD, attend, "attention_norm")
        x_BTD = self._residual(x_BTD, MLP(config, self.dtype, name="mlp"), "mlp_norm")
        return x_BTD, cache

    def _residual(
        self, x_BTD: jax.Array, f: Callable[[jax.Array], jax.Array], norm_name: str
    ) -> jax.Array:
        config = self.config
        norm = Norm(config.norm, config.norm_epsilon, config.use_bias, self.dtype, name=norm_name)
        dropout = nn.Dropout(config.dropout, deterministic=self.deterministic)
        if config.norm_placement == "pre":
            x_BTD = x_BTD + dropout(f(norm(x_BTD)))
        else:
            x_BTD = norm(x_BTD + dropout(f(x_BTD)))
        return nn.with_logical_constraint(x_BTD, ("act_batch", "act_length", "act_embed"))
