"""Sequence classification: a class for a text, or for a pair of texts.

Devlin et al. 2019 (BERT), section 4.1: the state of the first token, bos, goes through a layer with
tanh and to the classes. ModernBERT's has the layer of masked LM in its place, over the mean of all
tokens (Warner et al. 2024, the config.json of their release).

    {"text": "What a good film.", "label": "pos"}
    {"text": "It rains.", "text_pair": "It is wet outside.", "label": "entailment"}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.batch import Encoder, Example, Ids, Spec
from lmjax.config import Config
from lmjax.objectives import labelled, measures
from lmjax.objectives.description import Description
from lmjax.objectives.labelled import label, text

NUM_SENTINELS = 0
ARCHITECTURE = "encoder"
HEAD = "pooled"
FIELDS = ("text", "text_pair", "label")


@dataclass(frozen=True)
class SequenceClassification:
    """Rows of one text or two with one prediction, at their first token."""

    seq_len: int
    ids: Ids
    labels: tuple[str, ...]
    begins_with_bos: bool = True
    token_types: bool = False
    exact_likelihood = False
    writes = None

    @property
    def window_length(self) -> int:
        return self.seq_len

    @property
    def num_classes(self) -> int:
        return len(self.labels)

    def spec(self, num_rows: int) -> Spec:
        more = ("token_types",) if self.token_types else ()
        return labelled.spec(num_rows, self.seq_len, 1, "predict_at", *more)

    def encode(self, record: Mapping[str, Any], encoder: Encoder) -> Example:
        parts = [encoder.ids(text(record, "text"))]
        if record.get("text_pair") is not None:
            parts.append(encoder.ids(text(record, "text_pair")))
        longest = int(np.argmax([len(part) for part in parts]))
        inputs_T, types_T, needed = labelled.framed(
            self.ids, self.begins_with_bos, parts, self.seq_len, cut=longest
        )
        reference = label(record, "label")
        row = labelled.reading(inputs_T) | {"predict_at": np.zeros(1, np.int32)}
        row |= labelled.saying([labelled.number_of("label", reference, self.labels)])
        if self.token_types:
            row["token_types"] = types_T
        return Example(row, reference, {"data.seq_len": needed})

    def answer(self, output: np.ndarray, example: Example, encoder: Encoder) -> str:
        return self.labels[int(output[0].argmax())]


def labels(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The classes that examples have, in order."""
    return tuple(sorted({label(record, "label") for record in records}))


def measure(predictions: Sequence[str], references: Sequence[str]) -> list[measures.Measure]:
    """Accuracy and macro F1."""
    return measures.classes(predictions, references)


def describe(config: Config) -> Description:
    """What it says of itself."""
    return Description(
        name="sequence classification",
        how=f"one of {len(config.objective.labels)} classes is predicted of each text",
        does="tells classes of texts apart",
        frame=labelled.frame(config),
        special=("bos", "cls", "sep"),
        task="text-classification",
    )


def make(config: Config, ids: Ids) -> SequenceClassification:
    """The objective that `config` describes."""
    return SequenceClassification(
        seq_len=config.data.seq_len,
        ids=ids,
        labels=config.objective.labels,
        begins_with_bos=config.objective.begins_with_bos,
        token_types=config.model.token_types > 1,
    )
