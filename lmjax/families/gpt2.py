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

from lmjax.families.sizes import sized
from lmjax.hf.format import ACTIVATIONS, Format, Ids, Key
from lmjax.hf.table import Row, norm
from lmjax.model_config import ModelConfig

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


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": sized(BASE, 128, 4, 4),  # ours: learns within minutes on two CPU cores
    "mini": sized(BASE, 256, 4, 4),  # ours: for comparisons on a CPU
    "small": sized(BASE, 768, 12, 12),
    "medium": sized(BASE, 1024, 24, 16),
    "large": sized(BASE, 1280, 36, 20),
    "xl": sized(BASE, 1600, 48, 25),
}


def _conv(theirs: str, ours: str, inputs: str, outputs: str) -> list[Row]:
    """Rows of GPT-2's `Conv1D`, whose weight is [inputs, outputs]."""
    return [
        Row(f"{theirs}.weight", f"{ours}/kernel", f"({inputs}) ({outputs}) -> {inputs} {outputs}"),
        Row(f"{theirs}.bias", f"{ours}/bias", f"({outputs}) -> {outputs}"),
    ]


def _rows(model: ModelConfig, ids: Ids) -> list[Row]:
    layer, block = "transformer.h.{i}", "stack/{i}"
    qkv = [f"{block}/attention/{name}" for name in ("query", "key", "value")]
    return [
        Row("transformer.wte.weight", "embed/token", "v d"),
        Row("transformer.wpe.weight", "embed/position", "n d"),
        *norm(f"{layer}.ln_1", f"{block}/attention_norm"),
        Row(
            f"{layer}.attn.c_attn.weight",
            tuple(f"{path}/kernel" for path in qkv),
            "d (p h k) -> p d h k",
        ),
        Row(f"{layer}.attn.c_attn.bias", tuple(f"{p}/bias" for p in qkv), "(p h k) -> p h k"),
        *_conv(f"{layer}.attn.c_proj", f"{block}/attention/output", "h k", "d"),
        *norm(f"{layer}.ln_2", f"{block}/mlp_norm"),
        *_conv(f"{layer}.mlp.c_fc", f"{block}/mlp/up", "d", "m"),
        *_conv(f"{layer}.mlp.c_proj", f"{block}/mlp/down", "m", "d"),
        *norm("transformer.ln_f", "final_norm"),
        Row("lm_head.weight", "projection/kernel", "v d -> d v"),
    ]


FORMATS = (
    Format(
        model_type="gpt2",
        stock_class="GPT2LMHeadModel",
        base=BASE,
        keys=(
            Key("n_embd", "hidden_size"),
            Key("n_layer", "num_layers"),
            Key("n_head", "num_heads"),
            Key("n_inner", "mlp_size", None),
            Key("n_positions", "max_positions", 1024),
            Key("activation_function", "activation", "gelu_tanh", ACTIVATIONS),
            Key("layer_norm_epsilon", "norm_epsilon", 1e-5),
            Key("resid_pdrop", "dropout", 0.1),
            Key("initializer_range", "init_std", 0.02),
        ),
        must={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        rows=_rows,
        embedding="transformer.wte.weight",
        head="lm_head.weight",
        ids={"pad": None, "bos": 50256, "eos": 50256},
        write=lambda model, ids: {"embd_pdrop": model.dropout, "attn_pdrop": model.dropout},
        ignored=(r".*\.attn\.(masked_)?bias",),
        prefix="transformer.",
        tokenizer_of="merges.txt",
    ),
)
