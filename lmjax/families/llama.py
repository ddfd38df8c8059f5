"""Llama-like decoders: RMSNorm, rotated positions, gated SiLU, grouped keys, no biases.

Sizes are those of the released checkpoints' config.json:

- Llama 3.2 1B and 3.1 8B (Dubey et al. 2024): 1,235,814,400 and 8,030,261,248 parameters with
  128,256 ids; long wavelengths stretched by 32 and 8.
- Qwen3 0.6B (Yang et al. 2025): norms on each head's queries and keys, heads of a width of their
  own; 596,049,920 with 151,936 ids.
- OLMo 2 1B (Walsh et al. 2024; OLMo-2-0425-1B): norms on the sublayers' results and over all
  queries and keys; 1,484,916,736 with 100,352 ids.
"""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "architecture": "decoder",
    "max_positions": None,
    "position": "rope",
    "rope_theta": 500_000.0,
    "norm": "rmsnorm",
    "norm_placement": "pre",
    "norm_epsilon": 1e-5,
    "activation": "silu",
    "mlp_gated": True,
    "use_bias": False,
    "tie_embeddings": False,
    "init_std": 0.02,
}

_QWEN3 = BASE | {"rope_theta": 1_000_000.0, "norm_epsilon": 1e-6, "qk_norm": "head"}
_OLMO2 = BASE | {"norm_placement": "post_sublayer", "norm_epsilon": 1e-6, "qk_norm": "all"}


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
    "llama3_1b": _size(
        BASE, 2048, 16, 32, 8192, num_kv_heads=8, rope_factor=32.0, tie_embeddings=True
    ),
    "llama3_8b": _size(BASE, 4096, 32, 32, 14_336, num_kv_heads=8, rope_factor=8.0),
    "qwen3_0_6b": _size(
        _QWEN3, 1024, 28, 16, 3072, num_kv_heads=8, head_dim=128, tie_embeddings=True
    ),
    "olmo2_1b": _size(_OLMO2, 2048, 16, 16, 8192),
}
