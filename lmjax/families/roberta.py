"""RoBERTa: BERT's network, trained longer and without sentence pairs (Liu et al. 2019).

Sizes are those of the released checkpoints (github.com/facebookresearch/fairseq, examples/roberta):
with their vocabulary of 50,265 ids and masked-LM head 124,697,433 and 355,412,057 parameters.
Positions are looked up from the row behind the padding id's, which was 1; so two rows of the table
stand before the first position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lmjax.families import bert
from lmjax.families.sizes import sized
from lmjax.hf.format import Format, Ids
from lmjax.hf.table import Row
from lmjax.model_config import ModelConfig

BASE: dict[str, Any] = bert.BASE | {
    "position_offset": 2,
    "token_types": 1,
    "norm_epsilon": 1e-5,
    "init": "normal",
}

PRESETS: dict[str, dict[str, Any]] = {
    "base": sized(BASE, 768, 12, 12),
    "large": sized(BASE, 1024, 24, 16),
}


def _rows(model: ModelConfig, ids: Ids) -> list[Row]:
    # Their first position is in the row behind the padding id's; ours need not know that id.
    skip = model.position_offset - _offset(ids)
    return [
        *bert.encoder_rows("roberta"),
        Row("roberta.embeddings.position_embeddings.weight", "embed/position", "n d", skip=skip),
        *bert.head_rows(model, "lm_head.dense", "lm_head.layer_norm", _BIAS, "lm_head.decoder"),
        *bert.classifier_rows(model, "classifier.dense", "classifier.out_proj"),
    ]


_BIAS = "lm_head.bias"


_GELU = {"gelu": "gelu"}


def _offset(ids: Ids) -> int:
    pad = ids.get("pad")
    return (1 if pad is None else pad) + 1


def _read(config: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    offset = _offset(ids)
    rows = config.get("max_position_embeddings", 514)
    return {"position_offset": offset, "max_positions": rows - offset}


def _write(model: ModelConfig, ids: Ids) -> dict[str, Any]:
    return {
        "max_position_embeddings": model.max_positions + _offset(ids),
        "attention_probs_dropout_prob": model.dropout,
    }


FORMATS = (
    Format(
        model_type="roberta",
        stock_class="RobertaForMaskedLM",
        classifiers={
            "pooled": "RobertaForSequenceClassification",
            "token": "RobertaForTokenClassification",
            "span": "RobertaForQuestionAnswering",
        },
        base=BASE,
        # The activation of its blocks is free, that of its head is not.
        keys=tuple(replace(k, values=_GELU) if k.ours == "activation" else k for k in bert.KEYS),
        must=bert.MUST,
        rows=_rows,
        embedding="roberta.embeddings.word_embeddings.weight",
        head="lm_head.decoder.weight",
        ids={"pad": 1, "bos": 0, "eos": 2},
        read=_read,
        write=_write,
        same=lambda model: {"lm_head.decoder.bias": _BIAS} if model.tie_embeddings else {},
        unused=lambda model: {} if model.tie_embeddings else {_BIAS: "lm_head.decoder.bias"},
        ignored=(r"roberta\.pooler\..*", r".*\.position_ids"),
        prefix="roberta.",
        tokenizer_of="merges.txt",
        generates=False,
    ),
)
