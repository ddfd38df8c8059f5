"""cuDNN's fused attention of rows of several segments, by where they begin, from Hopper GPUs on.

cuDNN skips what is of different segments instead of reading a mask over all pairs. JAX has this in
a function that is not public, so all that is known of it is here: each segment's first position
(`q_offsets`) and length (`q_seqlen`), -1 where a row has fewer, and nothing is written, nor any
gradient, outside of segments. Rows of more segments than `_MOST_SEGMENTS` go by a mask.

Shape suffixes as in `lmjax.nn.attention`; N segments.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lmjax.nn.kernels import cudnn
from lmjax.nn.kernels.spec import AttentionSpec, KeyValues, Tokens

try:
    from jax._src.cudnn import fused_attention_stablehlo as library
except ImportError:  # not public: a release may have it elsewhere
    library = None

_MOST_SEGMENTS = 32  # of a row; cuDNN keeps a float32 for each, head and position
_HOPPER = "9.0"
_OLDEST = 90_600  # release of cuDNN


def why_not(
    spec: AttentionSpec,
    q_BTHK: jax.Array,
    kv: KeyValues,
    bias_1HTS: jax.Array | None,
    has_dropout: bool,
) -> str | None:
    """Why it cannot do this; None: it can."""
    if spec.how.one_segment:
        return "rows of one text have no offsets"
    if spec.window is not None:
        return "cuDNN's offsets have no windows to both sides"
    if bias_1HTS is not None:
        return "cuDNN's offsets have no bias"
    if q_BTHK.shape[2] != kv.k_BSGK.shape[2]:
        return "JAX before 0.12 misplaces offsets of grouped heads"
    if library is None or not hasattr(library, "dot_product_attention"):
        return f"JAX {jax.__version__} has cuDNN's offsets in another place"
    if not library.check_compute_capability(_HOPPER):
        return "cuDNN's offsets are for Hopper GPUs and later ones"
    if library.check_cudnn_version() < _OLDEST:
        return "cuDNN has offsets from 9.6 on"
    return cudnn.why_not(spec, q_BTHK, kv, None, has_dropout)


def attend(
    spec: AttentionSpec,
    q_BTHK: jax.Array,
    kv: KeyValues,
    queries: Tokens,
    keys: Tokens,
    bias_1HTS: None,
) -> jax.Array:
    """As `dispatch.attend`, of what `why_not` lets pass."""
    highest = (jnp.max(tokens.segment_ids) for tokens in (queries, keys))
    return jax.lax.cond(
        jnp.maximum(*highest) <= _MOST_SEGMENTS,
        partial(_by_offsets, spec),
        lambda *given: cudnn.attend(spec, *given, bias_1HTS),
        *(q_BTHK, kv, queries, keys),
    )


def _by_offsets(
    spec: AttentionSpec, q_BTHK: jax.Array, kv: KeyValues, queries: Tokens, keys: Tokens
) -> jax.Array:
    # The same on both sides: a segment that one of them lacks has length 0 there.
    num_B1 = jnp.maximum(*(jnp.max(x.segment_ids, axis=1) for x in (queries, keys)))[:, None]
    (q_seqlen, q_offsets), (kv_seqlen, kv_offsets) = (
        _segments(tokens, num_B1) for tokens in (queries, keys)
    )
    masks = library.MaskType
    o_BTHK = library.dot_product_attention(
        _real(q_BTHK, queries),
        *(_real(x, keys) for x in kv),
        q_seqlen=q_seqlen,
        kv_seqlen=kv_seqlen,
        q_offsets=q_offsets,
        kv_offsets=kv_offsets,
        scale=1.0,
        mask_type=masks.CAUSAL if spec.causal else masks.NO_MASK,
    )
    return _real(o_BTHK, queries)


def _segments(tokens: Tokens, num_B1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lengths int32 [B, N] and first positions int32 [B, N + 1] of segments 1, 2, ..."""
    numbers_N = jnp.arange(1, _MOST_SEGMENTS + 1)
    of_segment_BNT = tokens.segment_ids[:, None] == numbers_N[:, None]
    exists_BN = numbers_N <= num_B1
    lengths_BN = jnp.where(exists_BN, jnp.sum(of_segment_BNT, axis=2, dtype=jnp.int32), -1)
    starts_BN = jnp.where(exists_BN, jnp.argmax(of_segment_BNT, axis=2).astype(jnp.int32), -1)
    return lengths_BN, jnp.pad(starts_BN, ((0, 0), (0, 1)), constant_values=-1)


def _real(x_BTHK: jax.Array, tokens: Tokens) -> jax.Array:
    """0 at padding, in both directions: what cuDNN leaves unwritten there may be anything."""
    return jnp.where((tokens.segment_ids > 0)[:, :, None, None], x_BTHK, 0)
