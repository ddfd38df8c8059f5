"""Token classification: a tag for each word of a text, such as the names in it.

Devlin et al. 2019 (BERT), section 5.3: a word's tag is predicted at its first piece; its other
pieces are read and predict nothing. Words are joined by spaces, each encoded with the space in
front of it, so that it is known which pieces are whose.

    {"tokens": ["Anna", "lives", "in", "Oslo"], "tags": ["B-person", "O", "O", "B-place"]}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.batch import Encoder, Example, Ids, Spec
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.objectives import labelled, measures
from lmjax.objectives.description import Description

NUM_SENTINELS = 0
ARCHITECTURE = "encoder"
HEAD = "token"
FIELDS = ("tokens", "tags")
_OUTSIDE = "O"


@dataclass(frozen=True)
class TokenClassification:
    """Rows of one text each, whose words predict their tags."""

    seq_len: int
    ids: Ids
    labels: tuple[str, ...]
    begins_with_bos: bool = True
    exact_likelihood = False
    writes = None

    @property
    def window_length(self) -> int:
        return self.seq_len

    @property
    def num_classes(self) -> int:
        return len(self.labels)

    def spec(self, num_rows: int) -> Spec:
        return labelled.spec(num_rows, self.seq_len, self.seq_len)

    def encode(self, record: Mapping[str, Any], encoder: Encoder) -> Example:
        words, tags = _words_and_tags(record)
        pieces = [encoder.ids(f"{' ' * (i > 0)}{word}") for i, word in enumerate(words)]
        for index, of_word in enumerate(pieces):
            if not len(of_word):
                raise UserError(f"tokens[{index}] is nothing to the tokenizer; take it out")
        inputs_T, _, needed = labelled.framed(
            self.ids, self.begins_with_bos, [np.concatenate(pieces)], self.seq_len, cut=0
        )
        length_N = np.array([len(of_word) for of_word in pieces])
        first_N = np.cumsum(length_N) - length_N + self.begins_with_bos
        first_N = first_N[first_N < len(inputs_T) - 1]  # of a cut text the words that are left
        targets_T, weights_T = np.zeros(len(inputs_T), np.int32), np.zeros(len(inputs_T))
        numbers = [labelled.number_of(f"tags[{i}]", t, self.labels) for i, t in enumerate(tags)]
        targets_T[first_N], weights_T[first_N] = numbers[: len(first_N)], 1
        row = labelled.reading(inputs_T) | labelled.saying(targets_T, weights_T)
        return Example(row, tags, {"data.seq_len": needed}, first_N)

    def answer(self, output: np.ndarray, example: Example, encoder: Encoder) -> list[str]:
        found = [self.labels[k] for k in output[example.context].argmax(axis=-1)]
        return found + [_OUTSIDE] * (len(example.reference) - len(found))


def _words_and_tags(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    words, tags = labelled.texts(record, "tokens"), labelled.texts(record, "tags")
    if len(words) != len(tags):
        raise UserError(f"has {len(words)} tokens and {len(tags)} tags; give each token one")
    return words, tags


def labels(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The tags that examples have, in order."""
    return tuple(sorted({tag for record in records for tag in _words_and_tags(record)[1]}))


def measure(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> list[measures.Measure]:
    """F1 of entities and accuracy of tags."""
    return measures.entities(predictions, references)


def describe(config: Config) -> Description:
    """What it says of itself."""
    return Description(
        name="token classification",
        how=f"one of {len(config.objective.labels)} tags is predicted at the first piece of each "
        "word",
        does="tags the words of a text",
        frame=labelled.frame(config),
        special=("bos", "cls", "sep"),
        task="token-classification",
    )


def make(config: Config, ids: Ids) -> TokenClassification:
    """The objective that `config` describes."""
    return TokenClassification(
        seq_len=config.data.seq_len,
        ids=ids,
        labels=config.objective.labels,
        begins_with_bos=config.objective.begins_with_bos,
    )
