"""GPT-2: pre-norm decoder with learned positions (Radford et al. 2019, section 2.3, table 2).

The sizes are those of the released checkpoints (github.com/openai/gpt-2, model cards and
hparams.json); the paper's own parameter counts are off. With the released vocabulary of 50,257 ids
they have 124,439,808, 354,823,168, 774,030,080 and 1,557,611,200 parameters. The vocabulary is the
tokenizer's, so no preset sets it: 50,257 ids become 50,304 rows, a multiple of 128.

Dropout is 0 where the original has 0.1: in pre-training on more text than one epoch's it costs
time and gains nothing.
"""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "max_positions": 1024,
    "position": "learned",
    "architecture": "decoder",
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
    "tiny": _size(128, 4, 4),  # ours: learns within minutes on two CPU cores
    "mini": _size(256, 4, 4),  # ours: for comparisons on a CPU
    "small": _size(768, 12, 12),
    "medium": _size(1024, 24, 16),
    "large": _size(1280, 36, 20),
    "xl": _size(1600, 48, 25),
}
