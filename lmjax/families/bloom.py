"""BLOOM: a pre-norm decoder whose scores fall with distance (ALiBi), for many languages.

Le Scao et al. 2022, sections 3.2.2 and 3.2.3, table 3: GPT-2's block, a norm behind the embedding,
no positions but ALiBi's. With the released vocabulary of 250,880 rows the sizes have 559,214,592,
1,065,314,304, 1,722,408,960, 3,002,557,440 and 7,069,016,064 parameters (their model cards).
"""

from __future__ import annotations

from typing import Any

from lmjax.families.sizes import sized
from lmjax.hf.format import Format, Ids, Key
from lmjax.hf.table import Row, dense, norm
from lmjax.model_config import ModelConfig

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


PRESETS: dict[str, dict[str, Any]] = {
    "560m": sized(BASE, 1024, 24, 16),
    "1b1": sized(BASE, 1536, 24, 16),
    "1b7": sized(BASE, 2048, 24, 16),
    "3b": sized(BASE, 2560, 30, 32),
    "7b1": sized(BASE, 4096, 30, 32),
}


def _rows(model: ModelConfig, ids: Ids) -> list[Row]:
    layer, block = "transformer.h.{i}", "stack/{i}"
    qkv = [f"{block}/attention/{name}" for name in ("query", "key", "value")]
    fused = f"{layer}.self_attention.query_key_value"  # head by head
    return [
        Row("transformer.word_embeddings.weight", "embed/token", "v d"),
        *norm("transformer.word_embeddings_layernorm", "embed/norm"),
        *norm(f"{layer}.input_layernorm", f"{block}/attention_norm"),
        Row(f"{fused}.weight", tuple(f"{p}/kernel" for p in qkv), "(h p k) d -> p d h k"),
        Row(f"{fused}.bias", tuple(f"{p}/bias" for p in qkv), "(h p k) -> p h k"),
        *dense(f"{layer}.self_attention.dense", f"{block}/attention/output", "h k", "d"),
        *norm(f"{layer}.post_attention_layernorm", f"{block}/mlp_norm"),
        *dense(f"{layer}.mlp.dense_h_to_4h", f"{block}/mlp/up", "d", "m"),
        *dense(f"{layer}.mlp.dense_4h_to_h", f"{block}/mlp/down", "m", "d"),
        *norm("transformer.ln_f", "final_norm"),
        Row("lm_head.weight", "projection/kernel", "v d -> d v"),
    ]


FORMATS = (
    Format(
        model_type="bloom",
        stock_class="BloomForCausalLM",
        base=BASE,
        keys=(
            Key("hidden_size", "hidden_size", old="n_embed"),
            Key("n_layer", "num_layers", old="num_hidden_layers"),
            Key("n_head", "num_heads", old="num_attention_heads"),
            Key("layer_norm_epsilon", "norm_epsilon", 1e-5),
            Key("hidden_dropout", "dropout", 0.0),
            Key("initializer_range", "init_std", 0.02),
        ),
        must={"apply_residual_connection_post_layernorm": False},
        rows=_rows,
        embedding="transformer.word_embeddings.weight",
        head="lm_head.weight",
        ids={"pad": None, "bos": 1, "eos": 2},
        write=lambda model, ids: {"attention_dropout": model.dropout},
        prefix="transformer.",
    ),
)
