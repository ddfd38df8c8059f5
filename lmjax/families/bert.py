"""BERT: post-norm encoder trained by masked language modelling (Devlin et al. 2019, section 3).

The sizes are those of the released checkpoints (github.com/google-research/bert). With the released
vocabulary of 30,522 ids, token types and masked-LM head (but no pooler, which next-sentence
prediction needed and masked LM does not) they have 109,514,298 and 335,174,458 parameters. The
vocabulary is the tokenizer's, so no preset sets it.

On purpose different: no next-sentence prediction (Liu et al. 2019 showed it is not needed).
"""

from __future__ import annotations

from typing import Any

from lmjax.families.sizes import sized
from lmjax.hf.format import ACTIVATIONS, Format, Ids, Key
from lmjax.hf.table import Row, dense, norm
from lmjax.model_config import ModelConfig

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


PRESETS: dict[str, dict[str, Any]] = {
    # Ours: learns within minutes on two CPU cores. At this width 0.02 leaves attention near uniform
    # for most of so short a run; width**-0.5 gives activations the spread they have in "large".
    "tiny": sized(BASE, 128, 2, 4) | {"init_std": 0.088},
    "mini": sized(BASE, 256, 4, 4),  # ours: for comparisons on a CPU
    "base": sized(BASE, 768, 12, 12),
    "large": sized(BASE, 1024, 24, 16),
}


def encoder_rows(theirs: str) -> list[Row]:
    """Rows of BERT's embeddings and blocks, which RoBERTa shares, but for the positions."""
    layer, block = f"{theirs}.encoder.layer.{{i}}", "stack/{i}"
    return [
        Row(f"{theirs}.embeddings.word_embeddings.weight", "embed/token", "v d"),
        Row(f"{theirs}.embeddings.token_type_embeddings.weight", "embed/token_type", "t d"),
        *norm(f"{theirs}.embeddings.LayerNorm", "embed/norm"),
        *dense(f"{layer}.attention.self.query", f"{block}/attention/query", "d", "h k"),
        *dense(f"{layer}.attention.self.key", f"{block}/attention/key", "d", "h k"),
        *dense(f"{layer}.attention.self.value", f"{block}/attention/value", "d", "h k"),
        *dense(f"{layer}.attention.output.dense", f"{block}/attention/output", "h k", "d"),
        *norm(f"{layer}.attention.output.LayerNorm", f"{block}/attention_norm"),
        *dense(f"{layer}.intermediate.dense", f"{block}/mlp/up", "d", "m"),
        *dense(f"{layer}.output.dense", f"{block}/mlp/down", "m", "d"),
        *norm(f"{layer}.output.LayerNorm", f"{block}/mlp_norm"),
    ]


def head_rows(
    model: ModelConfig, dense_name: str, norm_name: str, bias: str, output: str
) -> list[Row]:
    """Rows of the masked-LM head; the bias that counts is the output's where that is its own."""
    return [
        *dense(dense_name, "transform/dense", "d", "e"),
        *norm(norm_name, "transform/norm"),
        Row(bias if model.tie_embeddings else f"{output}.bias", "head_bias", "v"),
        Row(f"{output}.weight", "projection/kernel", "v d -> d v"),
    ]


def classifier_rows(model: ModelConfig, pooler: str, pooled: str) -> list[Row]:
    """Rows of the heads that predict no tokens; `pooler` and `pooled` are those of sequences."""
    names = {"pooled": pooled, "token": "classifier", "span": "qa_outputs"}
    return [
        *dense(pooler, "classifier/dense", "d", "e"),
        *dense(names.get(model.head, ""), "classifier/out", "d", "c"),
    ]


def _rows(model: ModelConfig, ids: Ids) -> list[Row]:
    return [
        *encoder_rows("bert"),
        Row("bert.embeddings.position_embeddings.weight", "embed/position", "n d"),
        *head_rows(model, f"{_HEAD}.transform.dense", f"{_HEAD}.transform.LayerNorm", _BIAS, _OUT),
        *classifier_rows(model, "bert.pooler.dense", "classifier"),
    ]


_HEAD = "cls.predictions"
_BIAS, _OUT = f"{_HEAD}.bias", f"{_HEAD}.decoder"

KEYS = (
    Key("hidden_size", "hidden_size"),
    Key("num_hidden_layers", "num_layers"),
    Key("num_attention_heads", "num_heads"),
    Key("intermediate_size", "mlp_size"),
    Key("hidden_act", "activation", "gelu", ACTIVATIONS),
    Key("type_vocab_size", "token_types", 2),
    Key("layer_norm_eps", "norm_epsilon", 1e-12),
    Key("hidden_dropout_prob", "dropout", 0.1),
    Key("initializer_range", "init_std", 0.02),
)
MUST = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}

FORMATS = (
    Format(
        model_type="bert",
        stock_class="BertForMaskedLM",
        classifiers={
            "pooled": "BertForSequenceClassification",
            "token": "BertForTokenClassification",
            "span": "BertForQuestionAnswering",
        },
        base=BASE,
        keys=(*KEYS, Key("max_position_embeddings", "max_positions", 512)),
        must=MUST,
        rows=_rows,
        embedding="bert.embeddings.word_embeddings.weight",
        head=f"{_OUT}.weight",
        ids={"pad": 0, "bos": None, "eos": None},
        write=lambda model, ids: {"attention_probs_dropout_prob": model.dropout},
        same=lambda model: {f"{_OUT}.bias": _BIAS} if model.tie_embeddings else {},
        unused=lambda model: {} if model.tie_embeddings else {_BIAS: f"{_OUT}.bias"},
        ignored=(r"bert\.pooler\..*", r"cls\.seq_relationship\..*", r".*\.position_ids"),
        renamed=(
            (r"LayerNorm\.gamma$", "LayerNorm.weight"),
            (r"LayerNorm\.beta$", "LayerNorm.bias"),
        ),
        prefix="bert.",
        tokenizer_of="vocab.txt",
        generates=False,
    ),
)
