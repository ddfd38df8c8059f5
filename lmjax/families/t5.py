"""T5: pre-norm encoder-decoder with relative position bias (Raffel et al. 2020, section 2.1).

Norms are RMS norms, nothing has a bias, attention scores are not divided by the root of the head
width (the query's initialiser is smaller by it). Version 1.0 has a ReLU MLP and one matrix for both
embeddings and the head, whose inputs are scaled by hidden_size^-1/2; version 1.1 (Shazeer 2020,
github.com/google-research/text-to-text-transfer-transformer, released_checkpoints.md) a gated
tanh-GELU MLP and a head of its own. Sizes are those of the released checkpoints; the vocabulary is
the tokenizer's and its sentinels', so no preset sets it.

On purpose different: the untied head starts at hidden_size^-1/2 instead of 1, so that the first
loss is near ln(vocabulary) and not ten times it; dropout is at embeddings, attention and residual
sums, not inside the MLP.
"""

from __future__ import annotations

from typing import Any

DECODER_START = "pad"  # the special token in front of what the decoder reads

BASE: dict[str, Any] = {
    "architecture": "encoder_decoder",
    "position": "relative",
    "relative_buckets": 32,
    "relative_max_distance": 128,
    "max_positions": None,
    "head_dim": 64,
    "scale_attention": False,
    "norm": "rmsnorm",
    "norm_placement": "pre",
    "norm_epsilon": 1e-6,
    "activation": "relu",
    "mlp_gated": False,
    "use_bias": False,
    "tie_embeddings": True,
    "scale_logits": True,
    "init": "fan_in",
    "init_std": 1.0,
}

_V1_1 = BASE | {
    "activation": "gelu_tanh",
    "mlp_gated": True,
    "tie_embeddings": False,
    "scale_logits": False,
}


def _size(
    base: dict[str, Any], hidden_size: int, num_layers: int, num_heads: int, mlp_size: int, **more
) -> dict[str, Any]:
    return {
        **base,
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "mlp_size": mlp_size,
        **more,
    }


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": _size(BASE, 128, 2, 4, 512, head_dim=32),  # ours: minutes on two CPU cores
    "mini": _size(BASE, 256, 4, 4, 1024),  # ours: for comparisons on a CPU
    "small": _size(BASE, 512, 6, 8, 2048),
    "base": _size(BASE, 768, 12, 12, 3072),
    "large": _size(BASE, 1024, 24, 16, 4096),
    "3b": _size(BASE, 1024, 24, 32, 16_384, head_dim=128),
    "11b": _size(BASE, 1024, 24, 128, 65_536, head_dim=128),
    "v1_1_small": _size(_V1_1, 512, 8, 6, 1024),
    "v1_1_base": _size(_V1_1, 768, 12, 12, 2048),
    "v1_1_large": _size(_V1_1, 1024, 24, 16, 2816),
    "v1_1_3b": _size(_V1_1, 2048, 24, 32, 5120),
    "v1_1_11b": _size(_V1_1, 4096, 24, 64, 10_240),
}
