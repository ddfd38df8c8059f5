"""Which of several texts fits a context: a line of choices -> what is scored of each.

A line is `{"context": TEXT, "choices": [TEXT, ...], "answer": INDEX or TEXT}`, perhaps with `task`
and `id`. A choice stands where the context has `<blank>`, exactly as both are written; without one
it stands behind the context, with a space between them where neither has white space there.

| architecture | log p of a choice |
|---|---|
| decoder | of the choice and of what stands behind it, after what stands before it |
| encoder | pseudo-log-likelihood (Salazar et al. 2020) of the choice's tokens: each is masked in turn, the others and the context are seen |
| encoder_decoder | of what its objective has the decoder write for the gap (`Description.gap`) |

White space in front of a choice belongs to it. The tokens are those of context and choice as one
text; how many the context's are is counted without the choice, as lm-evaluation-harness does. An
encoder-decoder reads context and choice apart. Pieces of one word see each other in an encoder's
score, which favours long words; Kauf and Ivanova (2023) mask them together. That is not done here.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.data.tokenizer import IdsTokenizer
from lmjax.errors import UserError
from lmjax.infer.examples import Framing, clean
from lmjax.infer.score import Example
from lmjax.objectives.description import AFTER, BEFORE, FILLING, MASK, Description

BLANK = "<blank>"


@dataclass(frozen=True)
class Item:
    """A line: what stands before and behind the choice, the choices, and which one is right."""

    before: str
    after: str
    choices: tuple[str, ...]
    answer: int
    task: str
    id: Any


@dataclass(frozen=True)
class Choice:
    """One choice of a line.

    Attributes:
      example: what is scored.
      num_bytes: UTF-8 bytes of the text that log p is of.
    """

    example: Example
    num_bytes: int

    @property
    def ids(self) -> np.ndarray:
        """Those that log p is of."""
        counted = self.example.counted
        return self.example.targets if counted is None else self.example.targets[counted]


def item(record: Mapping[str, Any]) -> Item:
    """Reads a line's object.

    Raises:
      UserError: fields are missing or of the wrong kind, or there is nothing to choose.
    """
    for name in ("context", "choices", "answer"):
        if name not in record:
            raise UserError(f"has no field {name}; a line has context, choices and answer")
    context, choices = clean("context", record["context"]), record["choices"]
    if not isinstance(choices, list) or len(choices) < 2:
        raise UserError("choices is no list of two texts or more; give [TEXT, TEXT, ...]")
    choices = [clean(f"choices[{i}]", text) for i, text in enumerate(choices)]
    for i, text in enumerate(choices):
        if not text or text.isspace():
            raise UserError(f"choices[{i}] is empty; write what is to be scored")
    before, *behind = context.split(BLANK)
    if len(behind) > 1:
        raise UserError(f"context has {len(behind)} {BLANK}; leave one")
    if not behind and before and not before[-1].isspace():
        choices = [text if text[0].isspace() else f" {text}" for text in choices]
    task = record.get("task", "lines")
    if not isinstance(task, str):
        raise UserError(f"task is {task!r}, not text; give it a name")
    answer = _answer(record["answer"], record["choices"])
    return Item(before, "".join(behind), tuple(choices), answer, task, record.get("id"))


def _answer(answer: Any, choices: Sequence[str]) -> int:
    if isinstance(answer, str):
        if choices.count(answer) != 1:
            raise UserError(
                f"answer is {answer[:40]!r}, which is {choices.count(answer)} of the choices; "
                "give the index of the right one, from 0, or its text"
            )
        return choices.index(answer)
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise UserError(
            f"answer is {str(answer)[:40]}, and there are {len(choices)} choices; give an index "
            "from 0, or the right one's text"
        )
    return answer


@dataclass(frozen=True)
class ChoiceFraming:
    """Items -> what is scored of their choices.

    Attributes:
      framing: of the model.
      description: of its objective.
      begin_id: what a decoder reads before a text.
      sentinels: ids, first to last.

    Raises:
      UserError: the model takes no text, or has no mask.
    """

    framing: Framing
    description: Description
    begin_id: int | None = None
    sentinels: Sequence[int] = ()

    def __post_init__(self) -> None:
        tokenizer, kind = self.framing.tokenizer, self.framing.config.architecture
        if isinstance(tokenizer, IdsTokenizer):
            raise UserError(
                "this model was imported without its tokenizer, so it takes no text; import it "
                "again with tokenizer.json beside its weights"
            )
        if kind == "encoder" and tokenizer.mask_id is None:
            raise UserError("this model's tokenizer names no mask; take one trained with it")

    def __call__(self, given: Item) -> list[Choice]:
        """One for each choice.

        Raises:
          UserError: a choice has no tokens of its own, or takes too many.
        """
        make = {
            "decoder": self._after,
            "encoder": self._masked,
            "encoder_decoder": self._written,
        }[self.framing.config.architecture]
        before = given.before.rstrip()
        space, found = given.before[len(before) :], []
        for number, text in enumerate(given.choices):
            try:
                found.append(make(before, space + text, given.after))
                self.framing.check_length(max(found[-1].example.lengths))
            except UserError as error:
                raise UserError(f"choices[{number}] {error}") from None
            if not len(found[-1].ids):
                raise UserError(
                    f"choices[{number}] has no token of its own behind the context; let it begin "
                    "where a word does"
                )
        return found

    def _after(self, before: str, filling: str, after: str) -> Choice:
        ids, start = self._encoded(before + filling + after), len(self._encoded(before))
        if not start:
            if self.begin_id is None:
                raise UserError("has no context, and the tokenizer names no beginning; give one")
            ids, start = np.insert(ids, 0, self.begin_id), 1
        counted = np.arange(1, len(ids)) >= start
        example = Example(ids[:-1], ids[1:], counted=counted)
        return Choice(example, _num_bytes(filling + after))

    def _masked(self, before: str, filling: str, after: str) -> Choice:
        ids, start = self._encoded(before + filling + after), len(self._encoded(before))
        stop = len(self._encoded(before + filling))
        masked = np.arange(start, stop, dtype=np.int32) + len(self.framing.frame[0])
        framed = self.framing.framed(ids)
        mask_id = self.framing.tokenizer.mask_id
        example = Example(framed, framed[masked], mask_id=mask_id, masked=masked)
        return Choice(example, _num_bytes(filling))

    def _written(self, before: str, filling: str, after: str) -> Choice:
        gap = self.description.gap if after else self.description.continuation
        texts = {BEFORE: before, FILLING: filling, AFTER: after}
        source = self.framing.framed(self._parts(gap.source, texts))
        given, whole = (self._parts(p, texts) for p in (gap.given, gap.given + gap.scored))
        first = self.framing.framed([])[: len(self.framing.frame[0])]  # no text goes on behind
        target = np.concatenate([first, whole]).astype(np.int32)
        start = np.array([self.framing.decoder_start_id], np.int32)
        counted = np.arange(len(target)) >= len(first) + len(given)
        inputs = np.concatenate([start, target[:-1]])
        scored = "".join(texts[part] for part in gap.scored if part in texts)
        return Choice(Example(inputs, target, source, counted=counted), _num_bytes(scored))

    def _parts(self, parts: Sequence[str | int], texts: Mapping[str, str]) -> list[int]:
        """Ids of parts; texts side by side are one."""
        ids, text = [], ""
        for part in (*parts, None):
            if part in texts:
                text += texts[part]
                continue
            ids += self._encoded(text).tolist()
            text = ""
            if part == MASK:
                ids.append(self.framing.tokenizer.mask_id)
            elif part is not None:
                ids.append(self._sentinel(part))
        return ids

    def _sentinel(self, number: int) -> int:
        if not -len(self.sentinels) <= number < len(self.sentinels):
            raise UserError("asks for sentinels, which this model's vocabulary lacks")
        return self.sentinels[number]

    def _encoded(self, text: str) -> np.ndarray:
        return self.framing.tokenizer.encode(text)


def _num_bytes(text: str) -> int:
    return len(text.strip().encode())
