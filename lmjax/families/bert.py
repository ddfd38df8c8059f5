"""BERT: post-norm encoder trained by masked language modelling (Devlin et al. 2019, section 3).

The sizes are those of the released checkpoints (github.com/google-research/bert). With the released
vocabulary of 30,522 ids, token types and masked-LM head (but no pooler, which next-sentence
prediction needed and masked LM does not) they have 109,514,298 and 335,174,458 parameters. The
vocabulary is the tokenizer's, so no preset sets it.

On purpose different: no next-sentence prediction (Liu et al. 2019 showed it is not needed).
"""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "architecture": "encoder",
    "max_positions": 512,
    "position": "learned",
    "token_types": 2,
    "embedding_norm": True,
    "norm": "layernorm",
    "norm_placement": "post",
    "norm_epsilon": 1e-12,
    "activation": "gelu",
    "mlp_gated": False,
    "use_bias": True,
    "tie_embeddings": True,
    "head": "mlm",
    "init": "truncated_normal",
    "init_std": 0.02,
}


def _size(hidden_size: int, num_layers: int, num_heads: int) -> dict[str, Any]:
    return BASE | {"hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}


PRESETS: dict[str, dict[str, Any]] = {
    # Ours: learns within minutes on two CPU cores. At this width 0.02 leaves attention near uniform
    # for most of so short a run; width**-0.5 gives activations the spread they have in "large".
    "tiny": _size(128, 2, 4) | {"init_std": 0.088},
    "mini": _size(256, 4, 4),  # ours: for comparisons on a CPU
    "base": _size(768, 12, 12),
    "large": _size(1024, 24, 16),
}
