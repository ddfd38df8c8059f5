"""Positions inside attention: biases of its scores, or a rotation of its queries and keys.

**Relative bias** (Raffel et al. 2020, section 2.1): scores are shifted by a learned number per head
and distance. Distances fall into buckets: half of them one for each of the
nearest distances, the others ever wider up to a maximum from which on all share the last. Where
keys may lie on either side, each side has half of the buckets. One table serves all layers of a
stack, so the bias is made once, outside of them.

**Rotation** (RoPE: Su et al. 2021, equation 34): dims i and i + K/2 of a head are a point that is
turned by position / theta^(2i/K), so that the product of a query and a key depends on their
distance. The halves are paired, not the neighbours: the same function with its dims in another
order, the one in which weights are published.

**Linear bias** (ALiBi: Press et al. 2022, section 3): the scores of head h fall by slope_h per
position of distance; nothing is learned.

Shape suffixes: B rows, H heads, K head width, N buckets, T query length, S key length.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lmjax.model_config import ModelConfig
from lmjax.nn import linear


def bucket(
    distance: jax.Array, *, bidirectional: bool, num_buckets: int, max_distance: int
) -> jax.Array:
    """Bucket of each distance (key index - query index), int32 of the same shape.

    Args:
      distance: integers.
      bidirectional: whether keys behind the query count; else their distance is taken as 0.
      num_buckets: buckets in all.
      max_distance: from here on all distances of a side share a bucket.
    """
    if bidirectional:
        num_buckets //= 2
        side = jnp.where(distance > 0, num_buckets, 0)
        distance = jnp.abs(distance)
    else:
        side = 0
        distance = jnp.maximum(-distance, 0)
    num_exact = num_buckets // 2
    # The maximum keeps log(0) out of the branch that is not taken.
    octaves = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / num_exact)
    share = octaves / math.log(max_distance / num_exact)
    far = num_exact + (share * (num_buckets - num_exact)).astype(jnp.int32)
    return side + jnp.where(distance < num_exact, distance, jnp.minimum(far, num_buckets - 1))


class RelativeBias(nn.Module):
    """The bias of all layers of a stack."""

    config: ModelConfig
    bidirectional: bool

    @nn.compact
    def __call__(self, query_index_T: jax.Array, key_index_S: jax.Array) -> jax.Array:
        """Indices in the row (or the cache) -> float32 bias_1HTS.

        Indices, not positions: within a segment their differences are the same, and across
        segments nothing is seen.
        """
        config = self.config
        table_NH = self.param(
            "table",
            nn.with_logical_partitioning(
                linear.kernel_init(config, config.hidden_size), ("relative_buckets", "heads")
            ),
            (config.relative_buckets, config.num_heads),
        )
        bucket_TS = bucket(
            key_index_S[None, :] - query_index_T[:, None],
            bidirectional=self.bidirectional,
            num_buckets=config.relative_buckets,
            max_distance=config.relative_max_distance,
        )
        return jnp.moveaxis(table_NH[bucket_TS], -1, 0)[None]


@dataclasses.dataclass(frozen=True)
class Rope:
    """Frequencies of a rotation.

    Attributes:
      theta: base of the wavelengths.
      factor: 1, or how much longer the long wavelengths are made for a longer context
        (Llama 3.1: Dubey et al. 2024; their `apply_scaling`).
      original: the context before, in positions.
    """

    theta: float
    factor: float = 1.0
    original: int = 8192

    def frequencies(self, width: int) -> np.ndarray:
        """Radians per position, float64 [width / 2]."""
        plain = self.theta ** (-np.arange(0, width, 2) / width)
        if self.factor == 1:
            return plain
        # Kept where a quarter of the old context holds a wave, stretched where the whole does not.
        turns = self.original * plain / (2 * np.pi)
        kept = np.clip((turns - _LOW) / (_HIGH - _LOW), 0.0, 1.0)
        return plain * (kept + (1 - kept) / self.factor)


_LOW, _HIGH = 1.0, 4.0  # of all published models


def rotate(rope: Rope, x_BTHK: jax.Array, positions_BT: jax.Array) -> jax.Array:
    """Turns queries or keys by their positions; angles and products in float32."""
    frequencies_F = jnp.asarray(rope.frequencies(x_BTHK.shape[-1]), jnp.float32)
    angles_BT1F = positions_BT[:, :, None, None].astype(jnp.float32) * frequencies_F
    cos, sin = jnp.cos(angles_BT1F), jnp.sin(angles_BT1F)
    a, b = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return turned.astype(x_BTHK.dtype)


def alibi_slopes(num_heads: int) -> np.ndarray:
    """Slope of each head, float32 [H].

    2^(-8/n), 2^(-16/n), ... for n heads, a power of two. For other numbers, those of the power
    below, then every other one of the power above (the authors' code, `get_slopes`).
    """
    power = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * i / power) for i in range(1, power + 1)]
    between = [2.0 ** (-4 * i / power) for i in range(1, 2 * power, 2)]
    return np.asarray((slopes + between)[:num_heads], np.float32)
