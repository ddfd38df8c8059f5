"""JAX's splash attention for TPUs: masks that skip what is hidden, segment ids, grouped heads.

It has neither biases of scores nor dropout; ALiBi goes into its queries and keys. Shape suffixes as
in `lmjax.nn.attention`; P added dims.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as library
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from lmjax.nn.kernels import tiles
from lmjax.nn.kernels.spec import AttentionSpec, KeyValues, Tokens
from lmjax.nn.position import alibi_slopes


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
    if spec.alibi and not spec.causal:
        return "splash attention has ALiBi of earlier keys only"
    return tiles.why_not("splash attention", has_dropout)


def attend(
    spec: AttentionSpec,
    q_BTHK: jax.Array,
    kv: KeyValues,
    queries: Tokens,
    keys: Tokens,
    bias_1HTS: jax.Array | None,
) -> jax.Array:
    """As `dispatch.attend`, of what `why_not` lets pass."""
    if spec.alibi:
        q_BTHK, k_BSGK = _with_alibi(q_BTHK, kv.k_BSGK, keys)
        kv = kv._replace(k_BSGK=k_BSGK)
    kernel = partial(_of_one_device, spec)
    return tiles.attend(kernel, q_BTHK, kv, queries, keys, bias_1HTS)


def _with_alibi(q_BTHK: jax.Array, k_BSGK: jax.Array, keys: Tokens) -> tuple[jax.Array, jax.Array]:
    """Queries and keys with more dims, whose products are ALiBi's biases.

    Of earlier keys, -slope (q - k) is slope k and what all keys of a query have in common, which a
    softmax does not see. Both factors go in as sums of parts that bfloat16 has exactly: of float32
    slopes three, of positions up to 2^16 two.
    """
    B, T, H, _ = q_BTHK.shape
    _, S, G, _ = k_BSGK.shape
    slopes_PH = _parts(alibi_slopes(H))
    low_BS = keys.positions % _PART
    positions_BSP = jnp.stack([keys.positions - low_BS, low_BS], axis=-1)
    slopes_HP = np.tile(slopes_PH.T, 2)
    positions_BSP = jnp.repeat(positions_BSP, len(slopes_PH), axis=-1)
    q_BTHP = jnp.broadcast_to(slopes_HP, (B, T, *slopes_HP.shape))
    k_BSGP = jnp.broadcast_to(positions_BSP[:, :, None], (B, S, G, positions_BSP.shape[-1]))
    together = lambda x, more: jnp.concatenate([x, more.astype(x.dtype)], axis=-1)
    return together(q_BTHK, q_BTHP), together(k_BSGK, k_BSGP)


_PART = 256  # bfloat16 has 8 bits


def _parts(values: np.ndarray) -> np.ndarray:
    """float32 [H] -> three values [3, H] that bfloat16 has, and whose sum it is."""
    parts, rest = [], values
    for _ in range(3):
        part = rest.astype(jnp.bfloat16).astype(np.float32)
        parts.append(part)
        rest = rest - part
    return np.stack(parts)


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
