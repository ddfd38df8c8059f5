"""What a user gives to be continued, a JSON object, -> ids, and ids -> text for a user to read.

| architecture | as text | as ids |
|---|---|---|
| decoder | `prompt` | `prompt_ids` |
| encoder_decoder | `prompt` or `source` | `prompt_ids` or `source_ids` |

A decoder's text stands behind the end of the document before, as in training, so that an empty
prompt asks for a new document. An encoder's text is framed as `infer.examples` says; where training
told its objectives apart by mode tokens, text with spans gets the first mode that fills spans,
other text the one that goes on. Ids are taken as they are.

Text for an encoder may spell what training has put there: `<extra_id_0>`, `<extra_id_1>`, ... where
the objective has sentinels, `<mask>` where it has masks; where it has no masks, `<mask>` is the
next sentinel. Both take the white space in front of them along: what they hide begins with it. To a
decoder it is all text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax import objectives
from lmjax.batch import Ids
from lmjax.config import Config
from lmjax.data.tokenizer import AnyTokenizer, IdsTokenizer
from lmjax.errors import UserError
from lmjax.infer import examples
from lmjax.objectives.description import MASK, Description

_SPECIAL = re.compile(rf"{re.escape(MASK)}|<extra_id_(\d+)>")
_NAMES = {"decoder": ("prompt",), "encoder_decoder": ("prompt", "source")}


@dataclass(frozen=True)
class Asked:
    """A prompt.

    Attributes:
      ids: int32, what the model reads.
      text_ids: those of its text, sentinels in it, without what frames it; None: it came as ids.
      has_spans: whether there are sentinels in it.
    """

    ids: np.ndarray
    text_ids: np.ndarray | None
    has_spans: bool = False


@dataclass(frozen=True)
class Prompts:
    """Makes prompts for one model, and text of what it answers.

    Attributes:
      architecture, num_rows: of the model, and of its embedding.
      tokenizer: of its run.
      description: of its objective.
      begin_id: what stands in front of a decoder's text; None: nothing.
      ids: of tokenizer and objective; None: the tokenizer is not known.
      num_sentinels: that the encoder's text may have, modes among them.
    """

    architecture: str
    num_rows: int
    tokenizer: AnyTokenizer
    description: Description
    begin_id: int | None
    ids: Ids | None
    num_sentinels: int

    @classmethod
    def of(cls, config: Config, tokenizer: AnyTokenizer, begin_id: int | None) -> Prompts:
        """Those of a run."""
        architecture, num_rows = config.model.architecture, config.model.vocab_size
        ids, num_sentinels = None, 0
        if not isinstance(tokenizer, IdsTokenizer):
            ids = tokenizer.ids(num_rows)
            if architecture == "encoder_decoder":
                own = ids.num_sentinels
                num_sentinels = objectives.num_sentinels(config) if own is None else own
        description = objectives.describe(config)
        return cls(architecture, num_rows, tokenizer, description, begin_id, ids, num_sentinels)

    @property
    def knows_text(self) -> bool:
        """Whether ids can be turned into text."""
        return self.ids is not None

    def __call__(self, record: Mapping[str, Any]) -> Asked:
        """The prompt of a JSON object.

        Raises:
          UserError: its field is missing, empty or of the wrong kind, or there are ids outside the
            vocabulary.
        """
        name = self._field(record)
        if name.endswith("_ids"):
            ids = examples.checked(name, record[name], self.num_rows)
            if not len(ids) and self.architecture == "decoder" and self.begin_id is not None:
                ids = np.array([self.begin_id], np.int32)
            if not len(ids):
                raise UserError(f"{name} is empty; give one id at least")
            return Asked(ids, None)
        text = self.description.prefix + examples.clean(name, record[name])
        if self.architecture == "decoder":
            ids = self.tokenizer.encode(text)
            begin = [] if self.begin_id is None else [self.begin_id]
            return Asked(np.array([*begin, *ids], np.int32), ids)
        if not text.strip():
            raise UserError(
                f"{name} is empty, and the encoder needs something to read; give it text"
            )
        return self._for_encoder(name, text)

    def _field(self, record: Mapping[str, Any]) -> str:
        names = _NAMES[self.architecture]
        known = (*names, *(f"{name}_ids" for name in names))
        given = [name for name in known if name in record]
        if len(given) > 1:
            raise UserError(f"holds both {given[0]} and {given[1]}; give one of them")
        if not given:
            raise UserError("has no field prompt; a line has prompt, text, or prompt_ids")
        return given[0]

    @property
    def _modes(self) -> dict[bool, int]:
        """Whether there are spans -> number of the sentinel that says so, as a mode."""
        modes: dict[bool, int] = {}
        for prompt in self.description.prompts:
            first, *rest = prompt.parts
            if isinstance(first, int) and first < 0:
                has_spans = any(isinstance(part, int) for part in rest)
                modes.setdefault(has_spans, first % self.num_sentinels)
        return modes

    @property
    def num_spans(self) -> int:
        """Sentinels that are no modes."""
        named = [prompt.parts[0] for prompt in self.description.prompts]
        return self.num_sentinels - len({n for n in named if isinstance(n, int) and n < 0})

    def _for_encoder(self, name: str, text: str) -> Asked:
        parts = self._parts(text)
        numbers = [part for part in parts if isinstance(part, int)]
        has_spans = any(number < self.num_spans for number in numbers)
        mode = self._modes.get(has_spans)
        if mode is not None and not any(number >= self.num_spans for number in numbers):
            parts = [mode, *parts]
        ids: list[int] = []
        modes = 0
        for part in parts:
            if part is None:
                ids.append(self.tokenizer.mask_id)
            elif isinstance(part, int):
                ids.append(int(self.ids.sentinel(part)))
                modes += part >= self.num_spans
            else:
                ids.extend(self.tokenizer.encode(part).tolist())
        framed = examples.framed(ids, self.description.frame, self.tokenizer)
        return Asked(framed, np.array(ids[modes:], np.int32), has_spans)

    def _parts(self, text: str) -> list[str | int | None]:
        """Text, sentinels by number, and masks (None)."""
        has_masks = any(MASK in prompt.parts for prompt in self.description.prompts)
        parts: list[str | int | None] = []
        begin, following = 0, 0
        for found in _SPECIAL.finditer(text):
            special: int | None = None
            if found[1] is not None or not has_masks:
                if not self.num_sentinels:
                    continue
                special = following if found[1] is None else int(found[1])
                self._check_sentinel(found[0], special)
                if special < self.num_spans:
                    following = special + 1
            parts += [text[begin : found.start()].rstrip(), special]
            begin = found.end()
        return [part for part in (*parts, text[begin:]) if part != ""]

    def _check_sentinel(self, spelled: str, number: int) -> None:
        limit = self.num_spans if spelled == MASK else self.num_sentinels
        if number >= limit:
            raise UserError(
                f"{spelled} would be sentinel {number}, and the model has {limit}, from "
                "<extra_id_0> on; hide fewer spans"
            )

    def allowed(self) -> np.ndarray:
        """Bool [num_rows]: ids that mean something in what the model writes."""
        tokenizer = self.tokenizer
        allowed = np.arange(self.num_rows) < tokenizer.vocab_size
        never = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.mask_id, *tokenizer.unused_ids]
        if self.architecture == "decoder":
            never.append(tokenizer.bos_id)
        allowed[[token for token in never if token not in (None, tokenizer.eos_id)]] = False
        if self.num_sentinels:
            allowed[self.ids.sentinel(np.arange(self.num_sentinels))] = False
            allowed[self.ids.sentinel(np.arange(self.num_spans))] = True
        return allowed

    def text(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of ids; sentinels are spelled."""
        text, plain = [], []
        for token in map(int, ids):
            number = self._number(token)
            if number is None:
                plain.append(token)
            else:
                text += [self.tokenizer.decode(plain), f"<extra_id_{number}>"]
                plain = []
        return "".join([*text, self.tokenizer.decode(plain)])

    def _number(self, token: int) -> int | None:
        """Of a sentinel; None: it is none."""
        number = self.ids.sentinel(token)
        return number if 0 <= number < self.num_sentinels else None

    def filled(self, asked: Asked, answer: Sequence[int] | np.ndarray) -> str:
        """The text of a prompt with the spans of an answer in it; what it lacks stays spelled."""
        spans: dict[int, list[int]] = {}
        span: list[int] = []  # what stands before the first sentinel belongs nowhere
        for token in map(int, answer):
            if self._number(token) is None:
                span.append(token)
            else:
                span = []
                spans.setdefault(token, span)
        whole: list[int] = []
        for token in map(int, asked.text_ids):
            whole += spans.get(token) or [token]
        return self.text(whole)
