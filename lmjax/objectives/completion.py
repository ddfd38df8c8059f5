"""Completion: a decoder writes the answer to a prompt; the loss is that of the answer alone.

Radford et al. 2018, section 3.3, and what instruction tuning does since: prompt, answer and end
token stand in one row, encoded one by one, so that an answer begins as it does when the model
writes it. `objective.prefix` stands in front of every prompt.

    {"prompt": "Question: Where?\\nAnswer:", "completion": " In Oslo."}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.batch import Encoder, Example, Ids, Spec
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.objectives import labelled, measures
from lmjax.objectives.description import Description

NUM_SENTINELS = 0
ARCHITECTURE = "decoder"
FIELDS = ("prompt", "completion")


@dataclass(frozen=True)
class Completion:
    """Rows of `seq_len` ids; an answer of at most `target_length` is what the model may write."""

    seq_len: int
    target_length: int
    ids: Ids
    prefix: str = ""
    exact_likelihood = False

    @property
    def window_length(self) -> int:
        return self.seq_len

    @property
    def num_classes(self) -> int:
        return self.ids.num_rows

    @property
    def writes(self) -> int:
        return self.target_length

    def spec(self, num_rows: int) -> Spec:
        return labelled.spec(num_rows, self.seq_len, self.seq_len)

    def encode(self, record: Mapping[str, Any], encoder: Encoder) -> Example:
        prompt = encoder.ids(self.prefix + labelled.text(record, "prompt"))
        reference = labelled.text(record, "completion")
        written = np.append(encoder.ids(reference), self.ids.eos)
        needs = {
            "data.seq_len": len(prompt) + len(written) - 1,
            "objective.target_length": len(written),
        }
        if (over := needs["data.seq_len"] - self.seq_len) > 0:  # keep the prompt's end
            prompt = prompt[min(over, len(prompt) - 1) :]
        ids = np.concatenate([prompt, written]).astype(np.int32)[: self.seq_len + 1]
        is_answer_T = np.arange(1, len(ids)) >= len(prompt)
        row = labelled.reading(ids[:-1]) | labelled.saying(ids[1:], is_answer_T)
        return Example(row, reference.strip(), needs, prompt)

    def prompt(self, example: Example) -> np.ndarray:
        return example.context

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
        name="completion",
        how=f"each token of the answer is predicted from the prompt{behind} and what is before it",
        does="writes answers to prompts like those of its examples",
        prefix=prefix,
        begins_anew=False,
        task="text-generation",
    )


def make(config: Config, ids: Ids) -> Completion:
    """The objective that `config` describes.

    Raises:
      UserError: an answer fills the row.
    """
    length = config.objective.target_length
    if length >= config.data.seq_len:
        raise UserError(
            f"config.objective.target_length={length} leaves no room for a prompt in rows of "
            f"data.seq_len={config.data.seq_len}; shorten it or lengthen the rows"
        )
    return Completion(
        seq_len=config.data.seq_len,
        target_length=length,
        ids=ids,
        prefix=config.objective.prefix,
    )
