"""Relative position bias: attention scores shifted by a learned number per head and distance.

Raffel et al. 2020, section 2.1. Distances fall into buckets: half of them one for each of the
nearest distances, the others ever wider up to a maximum from which on all share the last. Where
keys may lie on either side, each side has half of the buckets. One table serves all layers of a
stack, so the bias is made once, outside of them.

Shape suffixes: H heads, N buckets, T query length, S key length.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.config import ModelConfig
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
