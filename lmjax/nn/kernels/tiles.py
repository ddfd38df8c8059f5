"""What the Pallas kernels for TPUs share: lengths that tiles divide, and devices that split rows.

Shape suffixes as in `lmjax.nn.attention`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.nn.kernels.spec import KeyValues, Tokens

LANES = 128
_SIZES = (512, 256, LANES)

# Logical names of the dims of what a kernel is given.
_QUERIES = ("act_batch", None, "heads", None)
_KEYS = ("act_batch", None, "kv_heads", None)
_TOKENS = ("act_batch", None)
_BIAS = (None, "heads", None, None)

Padded = Callable[
    [jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array
]


def tile(length: int) -> int:
    """The largest tile that divides a length."""
    return next(size for size in _SIZES if length % size == 0)


def why_not(name: str, has_dropout: bool) -> str | None:
    """What neither of them can do."""
    if has_dropout:
        return f"{name} has no dropout of attention probabilities"
    return None


def attend(
    kernel: Padded,
    q_BTHK: jax.Array,
    kv: KeyValues,
    queries: Tokens,
    keys: Tokens,
    bias_1HTS: jax.Array | None,
) -> jax.Array:
    """Runs a kernel on lengths that `LANES` divides, on the rows and heads of each device.

    Args:
      kernel: (q_BTHK, k_BSGK, v_BSGK, segment ids of queries and of keys, bias) -> o_BTHK.
      q_BTHK, kv, queries, keys, bias_1HTS: as of `dispatch.attend`. What is padded gets segment 0,
        which no token is in.
    """
    T, S = q_BTHK.shape[1], kv.k_BSGK.shape[1]
    of_queries, of_keys = -T % LANES, -S % LANES
    if bias_1HTS is not None:
        bias_1HTS = jnp.pad(bias_1HTS, ((0, 0), (0, 0), (0, of_queries), (0, of_keys)))
    given = (
        _padded(q_BTHK, of_queries),
        _padded(kv.k_BSGK, of_keys),
        _padded(kv.v_BSGK, of_keys),
        _padded(queries.segment_ids, of_queries),
        _padded(keys.segment_ids, of_keys),
        bias_1HTS,
    )
    if not jax.sharding.get_abstract_mesh().empty:
        names = (_QUERIES, _KEYS, _KEYS, _TOKENS, _TOKENS, _BIAS)
        specs = tuple(nn.logical_to_mesh_axes(each) for each in names)
        if bias_1HTS is None:
            specs = (*specs[:-1], None)
        kernel = jax.shard_map(kernel, in_specs=specs, out_specs=specs[0], check_vma=False)
    return kernel(*given)[:, :T]


def _padded(x_BT: jax.Array, more: int) -> jax.Array:
    return jnp.pad(x_BT, ((0, 0), (0, more), *((0, 0) for _ in x_BT.shape[2:])))
