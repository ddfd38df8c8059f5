"""JAX's splash attention for TPUs: masks that skip what is hidden, segment ids, grouped heads.

It has neither biases of scores nor dropout. Shape suffixes as in `lmjax.nn.attention`.
"""

from __future__ import annotations

from functools import partial

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as library
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

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
    if bias_1HTS is not None:
        return "splash attention has no bias"
    return tiles.why_not(spec, "splash attention", has_dropout)


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


def _of_one_device(spec, q_BTHK, k_BSGK, v_BSGK, queries_BT, keys_BS, bias):
    del bias
    T, H, S = q_BTHK.shape[1], q_BTHK.shape[2], k_BSGK.shape[1]
    made = library.make_splash_mha(
        masks.MultiHeadMask([_mask(spec, T, S)] * H),
        block_sizes=_blocks(T, S),
        head_shards=1,
        q_seq_shards=1,
    )

    def of_row(q_THK, k_SGK, v_SGK, queries_T, keys_S):
        heads_first = (x.swapaxes(0, 1) for x in (q_THK, k_SGK, v_SGK))
        segments = library.SegmentIds(queries_T, keys_S)
        return made(*heads_first, segment_ids=segments).swapaxes(0, 1)

    o_BTHK = jax.vmap(of_row)(q_BTHK, k_BSGK, v_BSGK, queries_BT, keys_BS)
    return o_BTHK.astype(q_BTHK.dtype)


def _mask(spec: AttentionSpec, T: int, S: int) -> masks.Mask:
    """By index: within a segment, indices are as far apart as positions."""
    if spec.window is not None:
        half = spec.window // 2
        return masks.LocalMask((T, S), (half, 0 if spec.causal else half), 0)
    return masks.CausalMask((T, S)) if spec.causal else masks.FullMask((T, S))


def _blocks(T: int, S: int) -> library.BlockSizes:
    q, kv = tiles.tile(T), tiles.tile(S)
    return library.BlockSizes(
        block_q=q,
        block_kv=kv,
        block_kv_compute=kv,
        block_q_dkv=q,
        block_kv_dkv=kv,
        block_kv_dkv_compute=kv,
        block_q_dq=q,
        block_kv_dq=kv,
    )
