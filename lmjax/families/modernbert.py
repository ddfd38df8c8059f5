"""ModernBERT: a pre-norm encoder with rotated positions and mostly local attention.

Warner et al. 2024, sections 2.1 and 2.2, table 4, and the released config.json files: every third
layer from the first on sees all tokens, the others those within 64 on either side; two bases of the
rotation; a gated GELU MLP; no biases but that of the logits; a norm behind the embedding and
therefore none before the first attention. With the released vocabulary of 50,368 ids they have
149,655,232 and 395,881,664 parameters. `rope_theta` is that after the extension to 8,192 tokens;
training on 1,024 used 10,000 in all layers.
"""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "architecture": "encoder",
    "max_positions": 8192,
    "position": "rope",
    "rope_theta": 160_000.0,
    "rope_local_theta": 10_000.0,
    "window": 128,
    "global_every": 3,
    "embedding_norm": True,
    "first_attention_norm": False,
    "norm": "layernorm",
    "norm_placement": "pre",
    "norm_epsilon": 1e-5,
    "activation": "gelu",
    "mlp_gated": True,
    "use_bias": False,
    "tie_embeddings": True,
    "head": "mlm",
    "init": "truncated_normal",
    "init_std": 0.02,
    "init_residual_scale": True,
}


def _size(hidden_size: int, num_layers: int, num_heads: int, mlp_size: int) -> dict[str, Any]:
    return {
        **BASE,
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "mlp_size": mlp_size,
    }


PRESETS: dict[str, dict[str, Any]] = {
    "base": _size(768, 22, 12, 1152),
    "large": _size(1024, 28, 16, 2624),
}
