"""The next token from logits: the likeliest one, or a random one.

softmax(logits / temperature), of it only the `top_k` likeliest tokens (Fan et al. 2018, section
5.4), of those the fewest that come to `top_p` (Holtzman et al. 2020, section 3.1). A token is drawn
by the Gumbel-max trick: argmax of log p + noise, so that the last bits of logits, which depend on
the batch that a row is in, hardly ever change it.

The noise of a token is a hash of (seed, number of the prompt, number of the token): whatever else
is in the batch, in whatever order, the same prompt gets the same tokens.

Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lmjax.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.

    Attributes:
      temperature: what logits are divided by; 0: always the likeliest token.
      top_k: only so many of the likeliest; None: all.
      top_p: only as many of the likeliest as it takes to come to this probability; None: all.

    Raises:
      UserError: a number is out of its range, or has no effect.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(
                f"temperature={self.temperature} is impossible; give 0 for the likeliest tokens, 1 "
                "for the model's own probabilities"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k={self.top_k} leaves no token to choose; give 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(
                f"top_p={self.top_p} is no share of the probability; give 0 < top_p <= 1"
            )
        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            raise UserError(
                "top_k and top_p narrow down what is drawn, and at temperature 0 nothing is; give "
                "a temperature above 0, or leave them out"
            )


def row_keys(seed: jax.Array, number_B2: jax.Array) -> jax.Array:
    """Keys [B] of rows, from a seed and two counters each; uint32."""

    def key(number_2: jax.Array) -> jax.Array:
        return jax.random.fold_in(
            jax.random.fold_in(jax.random.key(seed), number_2[0]), number_2[1]
        )

    return jax.vmap(key)(number_B2)


def choose(
    sampling: Sampling, logits_BV: jax.Array, key_B: jax.Array, step: jax.Array
) -> jax.Array:
    """Ids int32 [B].

    Args:
      sampling: how.
      logits_BV: float32; -inf: never.
      key_B: from `row_keys`.
      step: int32 scalar, number of the token.
    """
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    scores_BV = narrowed(sampling, logits_BV)
    vocab = logits_BV.shape[-1]
    noise = lambda key: jax.random.gumbel(jax.random.fold_in(key, step), (vocab,), jnp.float32)
    return jnp.argmax(scores_BV + jax.vmap(noise)(key_B), axis=-1).astype(jnp.int32)


def narrowed(sampling: Sampling, logits_BV: jax.Array) -> jax.Array:
    """Logits of what may be drawn; -inf: never. Equally likely tokens stay or go together."""
    vocab = logits_BV.shape[-1]
    # From the largest on, so that no temperature makes them infinite.
    scores_BV = logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True)
    scores_BV = scores_BV / max(sampling.temperature, _COLDEST)
    if sampling.top_k is not None and sampling.top_k < vocab:
        best_BK, _ = jax.lax.top_k(scores_BV, sampling.top_k)
        scores_BV = jnp.where(scores_BV >= best_BK[:, -1:], scores_BV, -jnp.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        sorted_BV = jnp.flip(jnp.sort(scores_BV, axis=-1), axis=-1)
        share_BV = jax.nn.softmax(sorted_BV, axis=-1)
        before_BV = jnp.cumsum(share_BV, axis=-1) - share_BV
        # The first always stays, whatever rounding makes of the sum before it.
        stays_BV = (before_BV < sampling.top_p).at[:, 0].set(True)
        last_B1 = jnp.min(jnp.where(stays_BV, sorted_BV, jnp.inf), axis=-1, keepdims=True)
        scores_BV = jnp.where(scores_BV >= last_B1, scores_BV, -jnp.inf)
    return scores_BV


_COLDEST = 1e-6  # below, float32 tells only equals apart anyway
