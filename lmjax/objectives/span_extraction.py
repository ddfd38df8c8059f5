"""Span extraction: the part of a text that answers a question.

Devlin et al. 2019 (BERT), sections 4.2 and 4.3: the question and the text are read together, and
every token says how likely the answer begins, and ends, with it. A question without an answer has
the first token for both. The best span of the text is the answer, of at most 30 tokens, or none,
where the first token scores higher.

    {"question": "Where?", "context": "It is in Oslo.", "answers": {"text": ["in Oslo"],
     "answer_start": [6]}}

Dimension key: T length, C tokens of the context.
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
ARCHITECTURE = "encoder"
HEAD = "span"
FIELDS = ("question", "context", "answers")
_LONGEST = 30  # tokens of an answer, as in BERT's code (`run_squad.py`)


@dataclass(frozen=True)
class Context:
    """Where the text that answers stands: from position `first` of the row on, token by token."""

    first: int
    text: str
    spans_C2: np.ndarray


@dataclass(frozen=True)
class SpanExtraction:
    """Rows of a question and a text, with two predictions: first and last token of the answer."""

    seq_len: int
    ids: Ids
    begins_with_bos: bool = True
    token_types: bool = False
    exact_likelihood = False
    writes = None

    @property
    def window_length(self) -> int:
        return self.seq_len

    @property
    def num_classes(self) -> int:
        return self.seq_len

    def spec(self, num_rows: int) -> Spec:
        more = ("token_types",) if self.token_types else ()
        return labelled.spec(num_rows, self.seq_len, 2, *more)

    def encode(self, record: Mapping[str, Any], encoder: Encoder) -> Example:
        question = encoder.ids(labelled.text(record, "question"))
        given = labelled.text(record, "context")
        context = encoder.clean(given)
        ids, spans_C2 = encoder.spans(context)
        inputs_T, types_T, needed = labelled.framed(
            self.ids, self.begins_with_bos, [question, ids], self.seq_len, cut=1
        )
        first = int(self.begins_with_bos) + len(question) + 1
        spans_C2 = spans_C2[: max(len(inputs_T) - first - 1, 0)]
        right = _answers(record, given)
        at = _tokens_of(right[0], given, spans_C2, encoder) if right else None
        targets = (0, 0) if at is None else (first + at[0], first + at[1])
        row = labelled.reading(inputs_T) | labelled.saying(targets)
        if right and at is None:  # it was cut away: nothing to learn here
            row |= labelled.saying(targets, (0, 0))
        if self.token_types:
            row["token_types"] = types_T
        reference = [text for text, _ in right] or [""]
        return Example(row, reference, {"data.seq_len": needed}, Context(first, context, spans_C2))

    def answer(self, output: np.ndarray, example: Example, encoder: Encoder) -> str:
        context: Context = example.context
        here = slice(context.first, context.first + len(context.spans_C2))
        if here.start >= here.stop:
            return ""
        score_CC = output[0, here, None] + output[1, None, here]
        allowed_CC = np.triu(np.ones_like(score_CC, bool)) & ~np.triu(
            np.ones_like(score_CC, bool), _LONGEST
        )
        score_CC = np.where(allowed_CC, score_CC, -np.inf)
        begin, end = np.unravel_index(score_CC.argmax(), score_CC.shape)
        if output[0, 0] + output[1, 0] > score_CC[begin, end]:
            return ""
        return context.text[context.spans_C2[begin, 0] : context.spans_C2[end, 1]].strip()


def _answers(record: Mapping[str, Any], context: str) -> list[tuple[str, int]]:
    """Right answers and where they begin; none where the question has none.

    Raises:
      UserError: they are not where they are said to be.
    """
    answers = labelled.field(record, "answers")
    try:
        pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
        for text, start in pairs:
            if context[start : start + len(text)] != text or not text.strip() or start < 0:
                raise UserError(
                    f"answers: {labelled.shown(text)} is not at character {start} of the context; "
                    "count characters from 0, of the context as it stands there"
                )
    except (TypeError, KeyError, ValueError):
        raise UserError(
            f"answers is {labelled.shown(answers)}; give {{'text': [TEXT, ...], 'answer_start': "
            "[CHARACTER, ...]}, both empty where there is none"
        ) from None
    return pairs


def _tokens_of(
    answer: tuple[str, int], given: str, spans_C2: np.ndarray, encoder: Encoder
) -> tuple[int, int] | None:
    """First and last token of an answer; None where the context was cut before its end."""
    text, start = answer
    # Characters are counted in the text as given, tokens in the clean one.
    begin = len(encoder.clean(given[:start])) if start else 0
    end = begin + len(encoder.clean(text))
    inside = np.flatnonzero((spans_C2[:, 1] > begin) & (spans_C2[:, 0] < end))
    if not len(inside) or spans_C2[inside[-1], 1] < end:
        return None
    return int(inside[0]), int(inside[-1])


def measure(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> list[measures.Measure]:
    """Exact match and F1 of words."""
    return measures.answers(predictions, references)


def describe(config: Config) -> Description:
    """What it says of itself."""
    return Description(
        name="span extraction",
        how="of each question the first and the last token of the answer are predicted, in the "
        "text behind it",
        does="finds the part of a text that answers a question",
        frame=labelled.frame(config),
        special=("bos", "cls", "sep"),
        task="question-answering",
    )


def make(config: Config, ids: Ids) -> SpanExtraction:
    """The objective that `config` describes."""
    return SpanExtraction(
        seq_len=config.data.seq_len,
        ids=ids,
        begins_with_bos=config.objective.begins_with_bos,
        token_types=config.model.token_types > 1,
    )
