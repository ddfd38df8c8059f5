"""BLOOM: a pre-norm decoder whose scores fall with distance (ALiBi), for many languages.

Le Scao et al. 2022, sections 3.2.2 and 3.2.3, table 3: GPT-2's block, a norm behind the embedding,
no positions but ALiBi's. With the released vocabulary of 250,880 rows the sizes have 559,214,592,
1,065,314,304, 1,722,408,960, 3,002,557,440 and 7,069,016,064 parameters (their model cards).
"""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "architecture": "decoder",
    "max_positions": None,
    "position": "alibi",
    "embedding_norm": True,
    "norm": "layernorm",
    "norm_placement": "pre",
    "norm_epsilon": 1e-5,
    "activation": "gelu_tanh",
    "mlp_gated": False,
    "use_bias": True,
    "tie_embeddings": True,
    "init_std": 0.02,
    "init_residual_scale": True,
}


def _size(hidden_size: int, num_layers: int, num_heads: int) -> dict[str, Any]:
    return BASE | {"hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}


PRESETS: dict[str, dict[str, Any]] = {
    "560m": _size(1024, 24, 16),
    "1b1": _size(1536, 24, 16),
    "1b7": _size(2048, 24, 16),
    "3b": _size(2560, 30, 32),
    "7b1": _size(4096, 30, 32),
}
