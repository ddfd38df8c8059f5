"""BART: a post-norm encoder-decoder that restores noised text (Lewis et al. 2020, section 2.1).

Either stack has its own positions and its own norm behind the embedding, both share the matrix of
tokens with the head. Sizes are those of the released checkpoints (github.com/facebookresearch/
fairseq, examples/bart), whose position tables have two rows before the first position. With their
vocabulary of 50,265 ids they have 139,420,416 and 406,291,456 parameters that are trained, and a
bias of the logits of one number per id that is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmjax.errors import UserError
from lmjax.families.sizes import sized
from lmjax.hf.format import ACTIVATIONS, Format, Ids, Key
from lmjax.hf.table import Row, dense, norm
from lmjax.model_config import ModelConfig

DECODER_START = "eos"  # the special token in front of what the decoder reads
OBJECTIVE = {"name": "denoising", "mask_rate": 0.3}  # what its published models were trained by

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
    "tiny": sized(BASE, 128, 2, 4) | {"init_std": 0.088},  # ours: minutes on two CPU cores
    "base": sized(BASE, 768, 6, 12),
    "large": sized(BASE, 1024, 12, 16),
}


def _attention(theirs: str, ours: str) -> list[Row]:
    return [
        *dense(f"{theirs}.q_proj", f"{ours}/query", "d", "h k"),
        *dense(f"{theirs}.k_proj", f"{ours}/key", "d", "h k"),
        *dense(f"{theirs}.v_proj", f"{ours}/value", "d", "h k"),
        *dense(f"{theirs}.out_proj", f"{ours}/output", "h k", "d"),
    ]


def _stack(theirs: str, embed: str, ours: str) -> list[Row]:
    layer, here = f"{theirs}.layers.{{i}}", f"{ours}/{{i}}"
    return [
        Row(f"{theirs}.embed_positions.weight", f"{embed}/position", "n d"),
        *norm(f"{theirs}.layernorm_embedding", f"{embed}/norm"),
        *_attention(f"{layer}.self_attn", f"{here}/attention"),
        *norm(f"{layer}.self_attn_layer_norm", f"{here}/attention_norm"),
        *dense(f"{layer}.fc1", f"{here}/mlp/up", "d", "m"),
        *dense(f"{layer}.fc2", f"{here}/mlp/down", "m", "d"),
        *norm(f"{layer}.final_layer_norm", f"{here}/mlp_norm"),
    ]


_SHARED = "model.shared.weight"
_ENCODER, _DECODER = (f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder"))


def _rows(model: ModelConfig, ids: Ids) -> list[Row]:
    return [
        Row(_DECODER if model.encoder_embeddings else _SHARED, "embed/token", "v d"),
        Row(_ENCODER, "encoder_embed/token", "v d"),
        *_stack("model.encoder", "encoder_embed", "encoder"),
        *_stack("model.decoder", "embed", "stack"),
        *_attention("model.decoder.layers.{i}.encoder_attn", "stack/{i}/cross_attention"),
        *norm("model.decoder.layers.{i}.encoder_attn_layer_norm", "stack/{i}/cross_attention_norm"),
        Row("final_logits_bias", "head_bias", "1 v -> v"),
        Row("lm_head.weight", "projection/kernel", "v d -> d v"),
    ]


def _read(config: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    for name in ("attention_heads", "ffn_dim"):
        encoder, decoder = config[f"encoder_{name}"], config[f"decoder_{name}"]
        if encoder != decoder:
            raise UserError(
                f"config.json: encoder_{name}={encoder} and decoder_{name}={decoder} differ, "
                "which is not supported"
            )
    # Untied, the class gives each stack a matrix of tokens of its own.
    tied = config.get("tie_word_embeddings", True)
    return {"frozen_logits_bias": True, "encoder_embeddings": not tied}


def _write(model: ModelConfig, ids: Ids) -> dict[str, Any]:
    return {
        "decoder_attention_heads": model.num_heads,
        "decoder_ffn_dim": model.mlp_width,
        "attention_dropout": model.dropout,
        "is_encoder_decoder": True,
        "forced_eos_token_id": ids.get("eos"),
    }


FORMATS = (
    Format(
        model_type="bart",
        stock_class="BartForConditionalGeneration",
        base=BASE,
        keys=(
            Key("d_model", "hidden_size"),
            Key("encoder_layers", "num_encoder_layers"),
            Key("decoder_layers", "num_layers"),
            Key("encoder_attention_heads", "num_heads"),
            Key("encoder_ffn_dim", "mlp_size"),
            Key("max_position_embeddings", "max_positions", 1024),
            Key("activation_function", "activation", "gelu", ACTIVATIONS),
            Key("dropout", "dropout", 0.1),
            Key("init_std", "init_std", 0.02),
        ),
        must={
            "scale_embedding": False,
            "normalize_before": False,
            "add_final_layer_norm": False,
            "normalize_embedding": True,
            "add_bias_logits": False,
            "static_position_embeddings": False,
        },
        rows=_rows,
        embedding=_SHARED,
        head="lm_head.weight",
        ids={"pad": 1, "bos": 0, "eos": 2, "decoder_start": 2},
        read=_read,
        write=_write,
        same=lambda model: (
            {} if model.encoder_embeddings else {_ENCODER: _SHARED, _DECODER: _SHARED}
        ),
        unused=lambda model: {_SHARED: _DECODER} if model.encoder_embeddings else {},
        zeros=("final_logits_bias",),
        prefix="model.",
        tokenizer_of="merges.txt",
    ),
)
