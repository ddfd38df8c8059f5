"""The one function that attention goes through, and the one place where a kernel is chosen.

A fused kernel is taken where it was asked for and can do what the layer wants; where it cannot, the
plain one takes its place, and the log says so once, and why.

Shape suffixes as in `lmjax.nn.attention`.
"""

from __future__ import annotations

import functools
import importlib
import logging

import jax

from lmjax.nn.kernels import blockwise, plain
from lmjax.nn.kernels.spec import AttentionSpec, Dropout, KeyValues, Tokens

# Modules of this package, in the order in which they are tried; imported where one is wanted.
_FUSED: dict[str, tuple[str, ...]] = {
    "xla": (),
    "blockwise": (),
    "cudnn": ("cudnn",),
    "cudnn_offsets": ("cudnn_offsets", "cudnn"),
    "splash": ("splash", "flash"),  # splash attention has no bias
    "flash": ("flash",),
}


def attend(
    spec: AttentionSpec,
    q_BTHK: jax.Array,
    kv: KeyValues,
    queries: Tokens,
    keys: Tokens,
    bias_1HTS: jax.Array | None,
    dropout: Dropout | None,
) -> jax.Array:
    """Mixes values by attention.

    Args:
      spec: what may be seen, and which kernel is wanted.
      q_BTHK: queries, already scaled.
      kv: keys and values.
      queries, keys: segment ids and positions of either side.
      bias_1HTS: added to the scores, float32; None: nothing.
      dropout: of the attention probabilities; None: there is none.

    Returns:
      o_BTHK in q's type; the softmax is in float32.
    """
    reasons = []
    for name in _FUSED[spec.how.kernel]:
        kernel = importlib.import_module(f"lmjax.nn.kernels.{name}")
        why_not = kernel.why_not(spec, q_BTHK, kv, bias_1HTS, dropout is not None)
        if why_not is None:
            return kernel.attend(spec, q_BTHK, kv, queries, keys, bias_1HTS)
        reasons.append(why_not)
    if reasons:
        _say_once(f"attention by plain products: {'; '.join(reasons)}")
    everything = blockwise if spec.how.kernel == "blockwise" else plain
    return everything.attend(spec, q_BTHK, kv, queries, keys, bias_1HTS, dropout)


@functools.cache
def _say_once(line: str) -> None:
    logging.getLogger("lmjax").info(line)
