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

from collections.abc import Mapping
from typing import Any

from lmjax.errors import UserError
from lmjax.families.sizes import sized
from lmjax.hf.format import ACTIVATIONS, Format, Ids, Key, activation_name
from lmjax.hf.table import Row, dense, norm
from lmjax.model_config import ModelConfig

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


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": sized(BASE, 128, 2, 4, mlp_size=512, head_dim=32),  # ours: minutes on two CPU cores
    "mini": sized(BASE, 256, 4, 4, mlp_size=1024),  # ours: for comparisons on a CPU
    "small": sized(BASE, 512, 6, 8, mlp_size=2048),
    "base": sized(BASE, 768, 12, 12, mlp_size=3072),
    "large": sized(BASE, 1024, 24, 16, mlp_size=4096),
    "3b": sized(BASE, 1024, 24, 32, mlp_size=16_384, head_dim=128),
    "11b": sized(BASE, 1024, 24, 128, mlp_size=65_536, head_dim=128),
    "v1_1_small": sized(_V1_1, 512, 8, 6, mlp_size=1024),
    "v1_1_base": sized(_V1_1, 768, 12, 12, mlp_size=2048),
    "v1_1_large": sized(_V1_1, 1024, 24, 16, mlp_size=2816),
    "v1_1_3b": sized(_V1_1, 2048, 24, 32, mlp_size=5120),
    "v1_1_11b": sized(_V1_1, 4096, 24, 64, mlp_size=10_240),
}


def _attention(theirs: str, ours: str) -> list[Row]:
    return [
        *dense(f"{theirs}.q", f"{ours}/query", "d", "h k"),
        *dense(f"{theirs}.k", f"{ours}/key", "d", "h k"),
        *dense(f"{theirs}.v", f"{ours}/value", "d", "h k"),
        *dense(f"{theirs}.o", f"{ours}/output", "h k", "d"),
    ]


def _stack(theirs: str, ours: str, last: int, gated: bool) -> list[Row]:
    """Rows of one stack; `last` is the number of the MLP among a block's sublayers."""
    block, here = f"{theirs}.block.{{i}}.layer", f"{ours}/{{i}}"
    mlp = f"{block}.{last}.DenseReluDense"
    up = [*dense(f"{mlp}.wi", f"{here}/mlp/up", "d", "m")]
    if gated:
        up = [
            *dense(f"{mlp}.wi_0", f"{here}/mlp/gate", "d", "m"),
            *dense(f"{mlp}.wi_1", f"{here}/mlp/up", "d", "m"),
        ]
    return [
        Row(
            f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            f"{ours}_bias/table",
            "b h",
        ),
        *_attention(f"{block}.0.SelfAttention", f"{here}/attention"),
        *norm(f"{block}.0.layer_norm", f"{here}/attention_norm"),
        *up,
        *dense(f"{mlp}.wo", f"{here}/mlp/down", "m", "d"),
        *norm(f"{block}.{last}.layer_norm", f"{here}/mlp_norm"),
    ]


def _rows(model: ModelConfig, ids: Ids) -> list[Row]:
    block = "decoder.block.{i}.layer.1"
    return [
        Row("shared.weight", "embed/token", "v d"),
        *_stack("encoder", "encoder", 1, model.mlp_gated),
        *norm("encoder.final_layer_norm", "encoder_norm"),
        *_stack("decoder", "stack", 2, model.mlp_gated),
        *_attention(f"{block}.EncDecAttention", "stack/{i}/cross_attention"),
        *norm(f"{block}.layer_norm", "stack/{i}/cross_attention_norm"),
        *norm("decoder.final_layer_norm", "final_norm"),
        Row("lm_head.weight", "projection/kernel", "v d -> d v"),
    ]


def _read(config: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    # A config's `tie_word_embeddings` says whether logits are scaled; what is tied the file says.
    scaled = config.get("scale_decoder_outputs")
    if scaled is None:
        scaled = config.get("tie_word_embeddings", True) is not False
    name = config.get("feed_forward_proj", "relu")
    gated, _, activation = name.rpartition("-")
    if gated not in ("", "gated") or activation not in ACTIVATIONS:
        raise UserError(f"config.json: feed_forward_proj={name!r} is not supported")
    if name == "gated-gelu":  # which means the tanh form, for historical reasons
        activation = "gelu_new"
    layers = config["num_layers"]
    return {
        "scale_logits": scaled,
        "mlp_gated": gated == "gated",
        "activation": ACTIVATIONS[activation],
        "num_encoder_layers": layers,
        "num_layers": config.get("num_decoder_layers") or layers,
        "init_std": float(config.get("initializer_factor", 1.0)),
    }


def _write(model: ModelConfig, ids: Ids) -> dict[str, Any]:
    name = activation_name(model)
    if model.mlp_gated:
        name = "gated-gelu" if name == "gelu_new" else f"gated-{name}"
    return {
        "tie_word_embeddings": model.scale_logits,
        "scale_decoder_outputs": model.scale_logits,
        "feed_forward_proj": name,
        "num_layers": model.encoder_layers,
        "num_decoder_layers": model.num_layers,
        "initializer_factor": model.init_std,
        "is_encoder_decoder": True,
    }


FORMATS = (
    Format(
        model_type="t5",
        stock_class="T5ForConditionalGeneration",
        base=BASE,
        keys=(
            Key("d_model", "hidden_size"),
            Key("num_heads", "num_heads"),
            Key("d_kv", "head_dim"),
            Key("d_ff", "mlp_size"),
            Key("relative_attention_num_buckets", "relative_buckets", 32),
            Key("relative_attention_max_distance", "relative_max_distance", 128),
            Key("layer_norm_epsilon", "norm_epsilon", 1e-6),
            Key("dropout_rate", "dropout", 0.1),
        ),
        rows=_rows,
        embedding="shared.weight",
        head="lm_head.weight",
        ids={"pad": 0, "bos": None, "eos": 1, "decoder_start": 0},
        read=_read,
        write=_write,
        same=lambda model: {
            "encoder.embed_tokens.weight": "shared.weight",
            "decoder.embed_tokens.weight": "shared.weight",
        },
        # The first releases have a bias that their cross-attention does not use.
        ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
        tied_by_file=True,
    ),
)
