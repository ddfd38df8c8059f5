"""What an objective says of itself, to those who score, export and describe its models.

An objective's module has `describe(config)`, which returns a `Description`; nothing outside the
module knows more of it by name.
"""

from __future__ import annotations

from dataclasses import dataclass

Frame = tuple[tuple[str, ...], tuple[str, ...]]

MASK = "<mask>"  # a part of a prompt: the mask token, whatever the tokenizer calls it
BEFORE, FILLING, AFTER = "<before>", "<filling>", "<after>"  # parts of a text with a gap


@dataclass(frozen=True)
class Prompt:
    """What the encoder of an encoder-decoder reads, to show what was trained.

    Attributes:
      parts: text, `MASK`, and sentinels by their number; -1 is the last one, as in a list.
      does: what the decoder then writes.
    """

    parts: tuple[str | int, ...]
    does: str


@dataclass(frozen=True)
class Gap:
    """How an encoder-decoder is shown a gap in a text and writes what fills it.

    Parts are `BEFORE` and `AFTER`, the text around the gap, `FILLING`, `MASK`, and sentinels by
    their number; -1 is the last one. Both sides have the frame of a text.

    Attributes:
      source: what the encoder reads.
      given: what the decoder writes first, and its probability says nothing of the filling.
      scored: what it writes then, and its probability does.
    """

    source: tuple[str | int, ...]
    given: tuple[str | int, ...]
    scored: tuple[str | int, ...]


@dataclass(frozen=True)
class Description:
    """An objective in words.

    Attributes:
      name: what it is called; a model is "pre-trained by" it.
      how: what is read and what is predicted, with the numbers of the config.
      does: what a model can do by it alone, after "it".
      frame: names of the special tokens in front of a text and of those behind it.
      special: names of the special tokens it uses beside pad, unk and eos: bos, cls, sep, mask.
      left_out: which predictions content loss leaves out; empty: none.
      prompts: for an encoder-decoder.
      prefix: what stands in front of every prompt.
      begins_anew: whether a decoder's text stands behind the end of another one.
      task: what the Hub calls its task; None: the usual one of its architecture.
      gap: for an encoder-decoder, where text stands behind the gap.
      continuation: the same where none does.
    """

    name: str
    how: str
    does: str
    frame: Frame = ((), ())
    special: tuple[str, ...] = ()
    left_out: str = ""
    prompts: tuple[Prompt, ...] = ()
    prefix: str = ""
    begins_anew: bool = True
    task: str | None = None
    gap: Gap | None = None
    continuation: Gap | None = None


def percent(share: float) -> str:
    """A share as it is read."""
    return f"{100 * share:.4g} %"
