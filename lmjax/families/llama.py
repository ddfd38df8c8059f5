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

from collections.abc import Mapping
from typing import Any

from lmjax.errors import UserError
from lmjax.families.sizes import sized
from lmjax.hf import rope
from lmjax.hf.format import ACTIVATIONS, Format, Ids, Key
from lmjax.hf.table import Row, dense, norm
from lmjax.model_config import ModelConfig

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


PRESETS: dict[str, dict[str, Any]] = {
    "llama3_1b": sized(
        BASE, 2048, 16, 32, mlp_size=8192, num_kv_heads=8, rope_factor=32.0, tie_embeddings=True
    ),
    "llama3_8b": sized(BASE, 4096, 32, 32, mlp_size=14_336, num_kv_heads=8, rope_factor=8.0),
    "qwen3_0_6b": sized(
        _QWEN3, 1024, 28, 16, mlp_size=3072, num_kv_heads=8, head_dim=128, tie_embeddings=True
    ),
    "olmo2_1b": sized(_OLMO2, 2048, 16, 16, mlp_size=8192),
}


def _rows(model: ModelConfig, ids: Ids) -> list[Row]:
    layer, block = "model.layers.{i}", "stack/{i}"
    attention, after = f"{layer}.self_attn", f"{layer}.post_attention_layernorm"
    norms = {f"{layer}.input_layernorm": "attention_norm", after: "mlp_norm"}
    if model.norm_placement == "post_sublayer":
        norms = {after: "attention_norm", f"{layer}.post_feedforward_layernorm": "mlp_norm"}
    return [
        Row("model.embed_tokens.weight", "embed/token", "v d"),
        *dense(f"{attention}.q_proj", f"{block}/attention/query", "d", "h k"),
        *dense(f"{attention}.k_proj", f"{block}/attention/key", "d", "h k"),
        *dense(f"{attention}.v_proj", f"{block}/attention/value", "d", "h k"),
        *dense(f"{attention}.o_proj", f"{block}/attention/output", "h k", "d"),
        *norm(f"{attention}.q_norm", f"{block}/attention/query_norm"),
        *norm(f"{attention}.k_norm", f"{block}/attention/key_norm"),
        *dense(f"{layer}.mlp.gate_proj", f"{block}/mlp/gate", "d", "m"),
        *dense(f"{layer}.mlp.up_proj", f"{block}/mlp/up", "d", "m"),
        *dense(f"{layer}.mlp.down_proj", f"{block}/mlp/down", "m", "d"),
        *(row for theirs, ours in norms.items() for row in norm(theirs, f"{block}/{ours}")),
        *norm("model.norm", "final_norm"),
        Row("lm_head.weight", "projection/kernel", "v d -> d v"),
    ]


_THETA = 10_000.0  # of configs that do not say


def _read(config: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    if kinds := {*(config.get("layer_types") or ())} - {"full_attention"}:
        raise UserError(
            f"config.json: layer_types with {', '.join(map(repr, kinds))} are not supported, only "
            "'full_attention' is"
        )
    heads = config["num_attention_heads"]
    return {
        **rope.read(config, _THETA),
        "num_kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
    }


def _write(model: ModelConfig, ids: Ids) -> dict[str, Any]:
    return {
        **rope.write(model),
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_width,
        "attention_dropout": model.dropout,
    }


_KEYS = (
    Key("hidden_size", "hidden_size"),
    Key("num_hidden_layers", "num_layers"),
    Key("num_attention_heads", "num_heads"),
    Key("intermediate_size", "mlp_size"),
    Key("hidden_act", "activation", "silu", ACTIVATIONS),
    Key("rms_norm_eps", "norm_epsilon", 1e-6),
    Key("attention_bias", "attention_bias", False),
    Key("max_position_embeddings", "max_positions", 2048),
    Key("initializer_range", "init_std", 0.02),
)


def _format(model_type: str, stock_class: str, base: dict[str, Any], **more: Any) -> Format:
    return Format(
        model_type=model_type,
        stock_class=stock_class,
        base=base,
        rows=_rows,
        embedding="model.embed_tokens.weight",
        head="lm_head.weight",
        read=_read,
        write=_write,
        ignored=(r".*\.rotary_emb\.inv_freq",),
        prefix="model.",
        **{"keys": _KEYS, "ids": {"pad": None, "bos": 1, "eos": 2}, **more},
    )


FORMATS = (
    _format(
        "llama",
        "LlamaForCausalLM",
        BASE,
        keys=(*_KEYS, Key("mlp_bias", "mlp_bias", False)),
    ),
    _format(
        "qwen3",
        "Qwen3ForCausalLM",
        _QWEN3,
        must={"use_sliding_window": False},
        ids={"pad": None, "bos": None, "eos": None},
    ),
    _format("olmo2", "Olmo2ForCausalLM", _OLMO2, ids={"pad": 1, "bos": None, "eos": 50279}),
)
