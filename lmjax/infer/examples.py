"""What a user gives to be scored, a JSON object, -> `score.Example`; one way for each variant.

| architecture | as text | as ids |
|---|---|---|
| decoder | `text` | `token_ids` |
| encoder | `text` | `token_ids`, `mask_id` |
| encoder_decoder | `source`, `target` | `source_ids`, `target_ids` |

Text is framed by special ids as in training:

| trained by | framed |
|---|---|
| causal LM | no special ids |
| masked LM | bos, ids, eos |
| denoising | bos, ids, eos; source and target alike |
| span corruption, prefix LM, UL2 | ids, eos; source and target alike |
| a mixture of these | as by the part of the largest weight |

Ids are taken as they are given; text has no sentinels, masks and mode tokens, so what is asked with
those is given as ids. In front of the decoder's inputs stands its start token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.data.text import normalise
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.errors import UserError
from lmjax.infer import score
from lmjax.infer.score import Example
from lmjax.model_config import ModelConfig
from lmjax.objectives.description import Frame

_TEXTS = {"decoder": ("text",), "encoder": ("text",), "encoder_decoder": ("source", "target")}
_IDS = {"text": "token_ids", "source": "source_ids", "target": "target_ids"}


@dataclass(frozen=True)
class Framing:
    """Makes examples for one model.

    Attributes:
      config: of the model.
      vocab_size: rows of its embedding.
      tokenizer: what text is encoded with, and whose ids are special.
      frame: names of the special ids in front of a text and of those behind it.
      decoder_start_id: of an encoder-decoder; else None.
    """

    config: ModelConfig
    vocab_size: int
    tokenizer: AnyTokenizer
    frame: Frame
    decoder_start_id: int | None = None

    def __call__(self, record: Mapping[str, Any]) -> Example:
        """The example of a JSON object.

        Raises:
          UserError: fields are missing or of the wrong kind, ids are outside the vocabulary, or
            there are too many of them.
        """
        given = self.sequences(record, _TEXTS[self.config.architecture])
        if self.config.architecture == "decoder":
            example = score.left_to_right(*given)
        elif self.config.architecture == "encoder":
            mask_id = self._mask_id(record)
            example = score.masked_in_turn(*given, mask_id, self.tokenizer.special_ids)
        else:
            if not len(given[0]):
                raise UserError("source_ids is empty, and the decoder looks at it; give one id")
            example = score.from_source(*given, self.decoder_start_id)
        self.check_length(max(example.lengths))
        return example

    def sequences(self, record: Mapping[str, Any], texts: tuple[str, ...]) -> list[np.ndarray]:
        """Ids of the fields `texts`, framed, or of those that hold ids in their place.

        Raises:
          UserError: as `__call__`, lengths aside.
        """
        return [self._ids(record, name) for name in self._fields(record, texts)]

    def _fields(self, record: Mapping[str, Any], texts: tuple[str, ...]) -> tuple[str, ...]:
        """Which fields hold what is scored: all texts, or all ids."""
        ids = tuple(_IDS[name] for name in texts)
        has_text, has_ids = ([name for name in names if name in record] for names in (texts, ids))
        either = f"{' and '.join(texts)} or {' and '.join(ids)}"
        if has_text and has_ids:
            raise UserError(f"holds both {has_text[0]} and {has_ids[0]}; give either {either}")
        for names, found in ((texts, has_text), (ids, has_ids)):
            if len(found) == len(names):
                return names
        missing = [name for name in (ids if has_ids else texts) if name not in record]
        kind = self.config.architecture.replace("_", "-")
        raise UserError(f"has no field {missing[0]}; a line for this {kind} has {either}")

    def _ids(self, record: Mapping[str, Any], name: str) -> np.ndarray:
        value = record[name]
        if name not in _IDS:
            return self._checked(name, value)
        return self.framed(self.tokenizer.encode(clean(name, value)))

    def framed(self, ids: Iterable[int]) -> np.ndarray:
        """Ids of a text between the special ones that stand around it, int32 [length].

        Raises:
          UserError: the tokenizer lacks one of those.
        """
        return framed(ids, self.frame, self.tokenizer)

    def _checked(self, name: str, ids: Any) -> np.ndarray:
        return checked(name, ids, self.vocab_size)

    def _mask_id(self, record: Mapping[str, Any]) -> int:
        mask_id = record.get("mask_id")
        if mask_id is not None:
            return int(self._checked("mask_id", [mask_id])[0])
        if self.tokenizer.mask_id is None:
            raise UserError(
                "has no mask_id, and this model's tokenizer names none; give the id of the mask"
            )
        return self.tokenizer.mask_id

    def check_length(self, length: int) -> None:
        """Raises UserError unless a sequence of this length fits the model."""
        longest = self.config.max_positions
        if self.config.position == "learned" and length > longest:
            raise UserError(
                f"takes {length} positions, the model has {longest} "
                "(config.model.max_positions); shorten it"
            )


def clean(name: str, text: Any) -> str:
    """The text of a field, as the text of training was cleaned.

    Raises:
      UserError: it is no text.
    """
    if not isinstance(text, str):
        raise UserError(f"{name} is {_shown(text)}, not text; give it in quotes")
    counts: Counter[str] = Counter()
    normal = normalise(text, counts)
    if counts["bad_utf8"]:
        raise UserError(f"{name} holds half a surrogate pair, which is no text; take it out")
    return text if normal is None else normal


def framed(ids: Iterable[int], frame: Frame, tokenizer: AnyTokenizer) -> np.ndarray:
    """Ids between the special ones that a frame names, int32.

    Raises:
      UserError: the tokenizer lacks one.
    """

    def special(name: str) -> int:
        token = getattr(tokenizer, f"{name}_id")
        if token is None:
            raise UserError(f"is text, for which this model's tokenizer lacks {name}; give ids")
        return token

    before, behind = ([special(name) for name in side] for side in frame)
    return np.array([*before, *ids, *behind], np.int32)


def checked(name: str, ids: Any, vocab_size: int) -> np.ndarray:
    """A list of ids inside the vocabulary -> int32 [length].

    Raises:
      UserError: it is none.
    """
    if not isinstance(ids, list):
        raise UserError(f"{name} is {_shown(ids)}, not a list of integers; give [ID, ID, ...]")
    for index, token in enumerate(ids):
        if type(token) is not int:  # true is an int, too
            raise UserError(f"{name}[{index}] is {_shown(token)}, not an integer; give ids")
        if not 0 <= token < vocab_size:
            raise UserError(
                f"{name}[{index}]={token} is outside the vocabulary of {vocab_size} ids; "
                "take the tokenizer that the model was trained with"
            )
    return np.array(ids, np.int32)


def _shown(value: Any) -> str:
    return repr(value)[:40]
