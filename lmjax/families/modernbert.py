"""ModernBERT: a pre-norm encoder with rotated positions and mostly local attention.

Warner et al. 2024, sections 2.1 and 2.2, table 4, and the released config.json files: every third
layer from the first on sees all tokens, the others those within 64 on either side; two bases of the
rotation; a gated GELU MLP; no biases but that of the logits; a norm behind the embedding and
therefore none before the first attention. With the released vocabulary of 50,368 ids they have
149,655,232 and 395,881,664 parameters. `rope_theta` is that after the extension to 8,192 tokens;
training on 1,024 used 10,000 in all layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmjax.errors import UserError
from lmjax.families.sizes import sized
from lmjax.hf import rope
from lmjax.hf.format import ACTIVATIONS, Format, Ids, Key, activation_name
from lmjax.hf.table import Row, dense, norm
from lmjax.model_config import ModelConfig

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
    "classifier_transform": True,
    "classifier_pooling": "mean",
    "init": "truncated_normal",
    "init_std": 0.02,
    "init_residual_scale": True,
}


PRESETS: dict[str, dict[str, Any]] = {
    "mini": sized(BASE, 256, 4, 4, mlp_size=512),  # ours: for a CPU
    "base": sized(BASE, 768, 22, 12, mlp_size=1152),
    "large": sized(BASE, 1024, 28, 16, mlp_size=2624),
}


def _rows(model: ModelConfig, ids: Ids) -> list[Row]:
    layer, block = "model.layers.{i}", "stack/{i}"
    kernels = lambda names: tuple(f"{block}/{name}/kernel" for name in names)
    biases = lambda names: tuple(f"{block}/{name}/bias" for name in names)
    qkv = ("attention/query", "attention/key", "attention/value")
    gated = ("mlp/gate", "mlp/up")
    return [
        Row("model.embeddings.tok_embeddings.weight", "embed/token", "v d"),
        *norm("model.embeddings.norm", "embed/norm"),
        *norm(f"{layer}.attn_norm", f"{block}/attention_norm"),
        Row(f"{layer}.attn.Wqkv.weight", kernels(qkv), "(p h k) d -> p d h k"),
        Row(f"{layer}.attn.Wqkv.bias", biases(qkv), "(p h k) -> p h k"),
        *dense(f"{layer}.attn.Wo", f"{block}/attention/output", "h k", "d"),
        *norm(f"{layer}.mlp_norm", f"{block}/mlp_norm"),
        Row(f"{layer}.mlp.Wi.weight", kernels(gated), "(p m) d -> p d m"),
        Row(f"{layer}.mlp.Wi.bias", biases(gated), "(p m) -> p m"),
        *dense(f"{layer}.mlp.Wo", f"{block}/mlp/down", "m", "d"),
        *norm("model.final_norm", "final_norm"),
        *dense("head.dense", "transform/dense", "d", "e"),
        *norm("head.norm", "transform/norm"),
        Row("decoder.bias", "head_bias", "v"),
        Row("decoder.weight", "projection/kernel", "v d -> d v"),
        *dense("classifier", "classifier/out", "d", "c"),
    ]


def _read(config: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    """Which layers see all tokens, and both bases of the rotation; also in older files' keys."""
    num_layers = config["num_hidden_layers"]
    inner, outer = (config.get(f"{name}_activation", "gelu") for name in ("hidden", "classifier"))
    if inner != outer:
        raise UserError(
            f"config.json: hidden_activation={inner!r} and classifier_activation={outer!r} differ, "
            "which is not supported"
        )
    every = config.get("global_attn_every_n_layers", 3)
    if kinds := config.get("layer_types"):
        wholes = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
        if wholes != list(range(0, len(kinds), every)):  # the list rules
            every = wholes[1] if len(wholes) > 1 else max(len(kinds), 2)
        if wholes != list(range(0, len(kinds), every)) or len(kinds) != num_layers:
            raise UserError(
                f"config.json: layer_types with full attention in layers {wholes} of {num_layers} "
                "is not supported; the first and every n-th after it are"
            )
    said = config.get("rope_parameters") or {}
    whole, local = (
        rope.read({**config, "rope_parameters": said.get(kind), "rope_theta": old}, default)
        for kind, old, default in (
            ("full_attention", config.get("global_rope_theta"), 160_000.0),
            ("sliding_attention", config.get("local_rope_theta"), 10_000.0),
        )
    )
    if whole["rope_factor"] != 1 or local["rope_factor"] != 1:
        raise UserError("config.json: stretched rotations of a modernbert are not supported")
    whole["classifier_pooling"] = "mean" if config.get("classifier_pooling") == "mean" else "first"
    if every == 1:
        return whole | {"window": None, "global_every": None, "rope_local_theta": None}
    return whole | {"global_every": every, "rope_local_theta": local["rope_theta"]}


def _write(model: ModelConfig, ids: Ids) -> dict[str, Any]:
    kinds = ("full_attention", "sliding_attention")
    local_theta = model.rope_local_theta or model.rope_theta
    thetas = (model.rope_theta, local_theta)
    return {
        "layer_types": [kinds[model.is_local(i)] for i in range(model.num_layers)],
        "local_attention": model.window or 128,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": theta}
            for kind, theta in zip(kinds, thetas, strict=True)
        },
        "global_attn_every_n_layers": model.global_every or 1,
        "global_rope_theta": model.rope_theta,
        "local_rope_theta": local_theta,
        "classifier_activation": activation_name(model),
        "classifier_pooling": {"first": "cls", "mean": "mean"}[model.classifier_pooling],
        "embedding_dropout": model.dropout,
        "attention_dropout": model.dropout,
    }


FORMATS = (
    Format(
        model_type="modernbert",
        stock_class="ModernBertForMaskedLM",
        classifiers={
            "pooled": "ModernBertForSequenceClassification",
            "token": "ModernBertForTokenClassification",
            "span": "ModernBertForQuestionAnswering",
        },
        base=BASE,
        keys=(
            Key("hidden_size", "hidden_size"),
            Key("num_hidden_layers", "num_layers"),
            Key("num_attention_heads", "num_heads"),
            Key("intermediate_size", "mlp_size"),
            Key("hidden_activation", "activation", "gelu", ACTIVATIONS),
            Key("max_position_embeddings", "max_positions", 8192),
            Key("local_attention", "window", 128),
            Key("norm_eps", "norm_epsilon", 1e-5),
            Key("norm_bias", "norm_bias", False),
            Key("attention_bias", "attention_bias", False),
            Key("mlp_bias", "mlp_bias", False),
            Key("classifier_bias", "use_bias", False),
            Key("mlp_dropout", "dropout", 0.0),
            Key("initializer_range", "init_std", 0.02),
        ),
        must={"decoder_bias": True},
        rows=_rows,
        embedding="model.embeddings.tok_embeddings.weight",
        head="decoder.weight",
        ids={"pad": 50283, "bos": 50281, "eos": 50282, "cls": 50281, "sep": 50282},
        read=_read,
        write=_write,
        prefix="model.",
        generates=False,
    ),
)
