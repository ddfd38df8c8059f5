"""Sequence to sequence: from one text to another, as in translation and summaries.

Sutskever et al. 2014; as text to text for any task, Raffel et al. 2020 (T5), section 2.4, with
`objective.prefix` in front of every source ("summarize: "). The decoder reads its start token and
the target, and writes the target and eos; where the model has learned to begin texts with bos
(BART), sources and targets do.

    {"source": "It rains.", "target": "Llueve."}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.batch import Encoder, Example, Ids, Spec
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.objectives import labelled, measures, two_sides
from lmjax.objectives.description import Description

NUM_SENTINELS = 0
ARCHITECTURE = "encoder_decoder"
FIELDS = ("source", "target")


@dataclass(frozen=True)
class Seq2Seq:
    """Rows of a source of `seq_len` ids and a target of `target_length`, eos included."""

    seq_len: int
    target_length: int
    ids: Ids
    begins_with_bos: bool = False
    prefix: str = ""
    exact_likelihood = False

    @property
    def window_length(self) -> int:
        return self.seq_len + self.target_length

    @property
    def num_classes(self) -> int:
        return self.ids.num_rows

    @property
    def writes(self) -> int:
        return self.target_length

    def spec(self, num_rows: int) -> Spec:
        return two_sides.spec(num_rows, self.seq_len, self.target_length)

    def encode(self, record: Mapping[str, Any], encoder: Encoder) -> Example:
        source = encoder.ids(self.prefix + labelled.text(record, "source"))
        reference = labelled.text(record, "target")
        frame = (self.ids, self.begins_with_bos)
        source_S, _, source_needs = labelled.framed(*frame, [source], self.seq_len, cut=0)
        target_T, _, target_needs = labelled.framed(
            *frame, [encoder.ids(reference)], self.target_length, cut=0
        )
        real_S, real_T = np.ones((1, len(source_S)), bool), np.ones((1, len(target_T)), bool)
        sides = (source_S[None], real_S, target_T[None], real_T)
        fields = two_sides.fields(*sides, real_T, self.ids)
        needs = {"data.seq_len": source_needs, "objective.target_length": target_needs}
        return Example({name: field[0] for name, field in fields.items()}, reference, needs)

    def prompt(self, example: Example) -> np.ndarray:
        return example.row["enc_inputs"]

    def answer(self, output: np.ndarray, example: Example, encoder: Encoder) -> str:
        return encoder.decode(output).strip()


def measure(predictions: Sequence[str], references: Sequence[str]) -> list[measures.Measure]:
    """Exact match, F1 of words, ROUGE-L, BLEU, chrF."""
    return measures.texts(predictions, references)


def describe(config: Config) -> Description:
    """What it says of itself."""
    prefix = config.objective.prefix
    behind = labelled.behind(prefix)
    return Description(
        name="sequence to sequence",
        how=f"the decoder writes the target of the source that the encoder reads{behind}",
        does="turns one text into another, as in its examples",
        frame=labelled.frame(config),
        special=("bos",) if config.objective.begins_with_bos else (),
        prefix=prefix,
        task="text2text-generation",
    )


def make(config: Config, ids: Ids) -> Seq2Seq:
    """The objective that `config` describes.

    Raises:
      UserError: the target is longer than the model's table of positions.
    """
    model, length = config.model, config.objective.target_length
    if model.position == "learned" and length > model.max_positions:
        raise UserError(
            f"config.objective.target_length={length} is longer than model.max_positions="
            f"{model.max_positions}; shorten it"
        )
    return Seq2Seq(
        seq_len=config.data.seq_len,
        target_length=length,
        ids=ids,
        begins_with_bos=config.objective.begins_with_bos,
        prefix=config.objective.prefix,
    )
