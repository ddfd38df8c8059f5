"""cuDNN's fused attention, through `jax.nn.dot_product_attention`, on GPUs from Ampere on.

Rows of one text and padding behind it go by lengths; several segments in a row become a mask, which
cuDNN reads as a bias. A learned bias then has no gradient (JAX gives one of a bias that all rows
share, and a mask is each row's own), so such layers are left to the plain kernel.

Shape suffixes as in `lmjax.nn.attention`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lmjax.nn.kernels.plain import visible
from lmjax.nn.kernels.spec import AttentionSpec, KeyValues, Tokens

_TYPES = (jnp.bfloat16, jnp.float16)
_MOST_WIDTH = 128  # of a head; 256 from Hopper on


def why_not(
    spec: AttentionSpec,
    q_BTHK: jax.Array,
    kv: KeyValues,
    bias_1HTS: jax.Array | None,
    has_dropout: bool,
) -> str | None:
    """Why it cannot do this; None: it can."""
    width, lengths = q_BTHK.shape[3], (q_BTHK.shape[1], kv.k_BSGK.shape[1])
    if q_BTHK.dtype not in _TYPES:
        return f"cuDNN's is for bfloat16 and float16, and this is {q_BTHK.dtype.name}"
    if width % 8 or width > _MOST_WIDTH:
        return f"cuDNN's has heads of a multiple of 8 up to {_MOST_WIDTH}, and this has {width}"
    if has_dropout:
        return "cuDNN's would draw other dropout than resumed runs have"
    if spec.alibi:
        return "ALiBi's distances would be a bias of each row's own"
    masked = not spec.how.one_segment or spec.window is not None
    if bias_1HTS is not None and masked:
        return "cuDNN's has no gradient of a bias where rows hold several texts"
    if (bias_1HTS is not None or masked) and any(length % 2 for length in lengths):
        return f"cuDNN's has biases for even lengths, and these are {lengths}"
    return None


def attend(
    spec: AttentionSpec,
    q_BTHK: jax.Array,
    kv: KeyValues,
    queries: Tokens,
    keys: Tokens,
    bias_1HTS: jax.Array | None,
) -> jax.Array:
    """As `dispatch.attend`, of what `why_not` lets pass."""
    mask_B1TS = queries_B = keys_B = None
    if spec.how.one_segment and spec.window is None:
        queries_B, keys_B = (_lengths(tokens) for tokens in (queries, keys))
    else:
        mask_B1TS = visible(spec, queries, keys)[:, None]
    return jax.nn.dot_product_attention(
        q_BTHK,
        kv.k_BSGK,
        kv.v_BSGK,
        bias=None if bias_1HTS is None else bias_1HTS.astype(q_BTHK.dtype),
        mask=mask_B1TS,
        scale=1.0,
        is_causal=spec.causal,
        query_seq_lengths=queries_B,
        key_value_seq_lengths=keys_B,
        implementation="cudnn",
    )


def _lengths(tokens: Tokens) -> jax.Array:
    """Positions before the padding, int32 [B]."""
    return jnp.sum(tokens.segment_ids > 0, axis=1, dtype=jnp.int32)
