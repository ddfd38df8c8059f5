"""JAX's older flash attention for TPUs: it has a bias of scores and gives its gradient.

The bias is spread over the rows, and its gradient is summed over them. Grouped heads are repeated;
it has no windows. Shape suffixes as in `lmjax.nn.attention`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import flash_attention as library

from lmjax.nn.kernels import tiles
from lmjax.nn.kernels.spec import AttentionSpec, KeyValues, Tokens


def why_not(
    spec: AttentionSpec,
    q_BTHK: jax.Array,
    kv: KeyValues,
    bias_1HTS: jax.Array | None,
    has_dropout: bool,
) -> str | None:
    """Why it cannot do this; None: it can."""
    if spec.window is not None:
        return "the biased flash attention has no windows"
    if spec.alibi:
        return "the biased flash attention has no ALiBi"
    return tiles.why_not("the biased flash attention", has_dropout)


def attend(
    spec: AttentionSpec,
    q_BTHK: jax.Array,
    kv: KeyValues,
    queries: Tokens,
    keys: Tokens,
    bias_1HTS: jax.Array | None,
) -> jax.Array:
    """As `dispatch.attend`, of what `why_not` lets pass."""
    kernel = partial(_of_one_device, spec)
    return tiles.attend(kernel, q_BTHK, kv, queries, keys, bias_1HTS)


def _of_one_device(spec, q_BTHK, k_BSGK, v_BSGK, queries_BT, keys_BS, bias_1HTS):
    B, T, H, _ = q_BTHK.shape
    S, G = k_BSGK.shape[1:3]
    k_BSHK, v_BSHK = (jnp.repeat(x, H // G, axis=2) for x in (k_BSGK, v_BSGK))
    bias_BHTS = None
    if bias_1HTS is not None:
        bias_BHTS = jnp.broadcast_to(bias_1HTS, (B, H, T, S))
    o_BHTK = library.flash_attention(
        *(x.swapaxes(1, 2) for x in (q_BTHK, k_BSHK, v_BSHK)),
        ab=bias_BHTS,
        segment_ids=library.SegmentIds(queries_BT, keys_BS),
        causal=spec.causal,
        block_sizes=_blocks(T, S),
    )
    return o_BHTK.swapaxes(1, 2).astype(q_BTHK.dtype)


def _blocks(T: int, S: int) -> library.BlockSizes:
    q, kv = tiles.tile(T), tiles.tile(S)
    return library.BlockSizes(
        block_q=q,
        block_k_major=kv,
        block_k=kv,
        block_b=1,
        block_q_major_dkv=q,
        block_k_major_dkv=kv,
        block_k_dkv=kv,
        block_q_dkv=q,
        block_k_major_dq=kv,
        block_k_dq=kv,
        block_q_dq=q,
    )
