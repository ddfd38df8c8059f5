"""One transformer block: attention, over the encoder too where there is one, then an MLP.

Pre-norm (Radford et al. 2019): x + f(norm(x)). Post-norm (Vaswani et al. 2017): norm(x + f(x)).
On each sublayer's result (OLMo 2: Walsh et al. 2024, section 3.1): x + norm(f(x)).

Shape suffixes: B rows, T length, D hidden_size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.model_config import ModelConfig
from lmjax.nn import norm as norms
from lmjax.nn import residual
from lmjax.nn.attention import Attention, AttentionSpec, Context, Kept
from lmjax.nn.mlp import MLP


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """What may differ from one block of a model to the next.

    Attributes:
      attention: of the self-attention.
      cross: whether cross-attention to the encoder follows it.
      attention_norm: whether the self-attention has its norm.
    """

    attention: AttentionSpec
    cross: bool = False
    attention_norm: bool = True


class Cache(NamedTuple):
    """What decoding keeps of one block.

    Attributes:
      own: of the tokens.
      memory: of the encoder's result; None: they are made anew each time.
    """

    own: Kept
    memory: Kept | None = None


class Block(nn.Module):
    """Attention and MLP."""

    config: ModelConfig
    spec: BlockSpec
    dtype: jnp.dtype
    deterministic: bool

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, context: Context, cache: Cache | None = None
    ) -> tuple[jax.Array, Cache | None]:
        """x_BTD -> (x_BTD, what is to be put in the cache or, without one, None)."""
        config = self.config
        own, memory = (None, None) if cache is None else cache
        new_own = new_memory = None

        def attention(spec: AttentionSpec, name: str) -> Attention:
            return Attention(config, spec, self.dtype, self.deterministic, name=name)

        def attend_self(h_BTD: jax.Array) -> jax.Array:
            nonlocal new_own
            attend = attention(self.spec.attention, "attention")
            y_BTD, new_own = attend(h_BTD, h_BTD, context, own)
            return y_BTD

        def attend_memory(h_BTD: jax.Array) -> jax.Array:
            nonlocal new_memory
            attend = attention(
                AttentionSpec(causal=False, how=self.spec.attention.how), "cross_attention"
            )
            source_BSD, tokens = context.memory
            over = Context(context.queries, tokens)
            kept = memory if source_BSD is None else None
            y_BTD, new_memory = attend(h_BTD, source_BSD, over, kept)
            return y_BTD

        first_norm = "attention_norm" if self.spec.attention_norm else None
        x_BTD = self._residual(x_BTD, attend_self, first_norm)
        if self.spec.cross:
            x_BTD = self._residual(x_BTD, attend_memory, "cross_attention_norm")
        x_BTD = self._residual(x_BTD, MLP(config, self.dtype, name="mlp"), "mlp_norm")
        if cache is None:
            return x_BTD, None
        return x_BTD, Cache(new_own, None if memory is None else new_memory)

    def _residual(
        self, x_BTD: jax.Array, f: Callable[[jax.Array], jax.Array], norm_name: str | None
    ) -> jax.Array:
        config = self.config
        norm = lambda x: x
        if norm_name is not None:
            norm = norms.make(config, self.dtype, norm_name)
        dropout = nn.Dropout(config.dropout, deterministic=self.deterministic)
        if config.norm_placement == "pre":
            x_BTD = x_BTD + dropout(f(norm(x_BTD)))
        elif config.norm_placement == "post":
            x_BTD = norm(x_BTD + dropout(f(x_BTD)))
        else:
            x_BTD = x_BTD + dropout(norm(f(x_BTD)))
        return residual.constrained(x_BTD)
