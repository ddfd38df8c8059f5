"""BART: a post-norm encoder-decoder trained to restore noised text (Lewis et al. 2020, section 2.1).

Either stack has its own positions and its own norm behind the embedding, both share the matrix of
tokens with the head. Sizes are those of the released checkpoints (github.com/facebookresearch/
fairseq, examples/bart), whose position tables have two rows before the first position. With their
vocabulary of 50,265 ids they have 139,420,416 and 406,291,456 parameters that are trained, and a
bias of the logits of one number per id that is not.
"""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "architecture": "encoder_decoder",
    "max_positions": 1024,
    "position": "learned",
    "position_offset": 2,
    "embedding_norm": True,
    "norm": "layernorm",
    "norm_placement": "post",
    "norm_epsilon": 1e-5,
    "activation": "gelu",
    "mlp_gated": False,
    "use_bias": True,
    "tie_embeddings": True,
    "frozen_logits_bias": True,
    "init_std": 0.02,
}

PRESETS: dict[str, dict[str, Any]] = {
    "base": BASE | {"hidden_size": 768, "num_layers": 6, "num_heads": 12},
    "large": BASE | {"hidden_size": 1024, "num_layers": 12, "num_heads": 16},
}

DECODER_START = "eos"
