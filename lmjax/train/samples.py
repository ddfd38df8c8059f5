"""Samples: what a model did with a few held-out texts, to be read beside the numbers.

They are of the same texts at every evaluation and go to `samples.jsonl` in the workdir, a line for
each, which a resumed run cuts as it does metrics.jsonl.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SHOWN = 48  # characters of each side in a line of the console
_GAP = re.compile(r"<mask>|<extra_id_\d+>")


@dataclass(frozen=True)
class Sample:
    """One text.

    Attributes:
      index: which of the texts.
      prompt: what the model read; `<mask>` and `<extra_id_0>` stand for what was hidden.
      text: what it wrote, or the whole text with its masks filled.
      reference: what would have been right.
      filled: where it writes spans by their sentinels: the prompt with these in it.
    """

    index: int
    prompt: str
    text: str
    reference: str
    filled: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What is written of it."""
        filled = {} if self.filled is None else {"filled": self.filled}
        known = {"prompt": self.prompt, "text": self.text, "reference": self.reference}
        # Half a surrogate pair, which a tokenizer may come to, is no UTF-8.
        clean = {k: v.encode("utf-8", "replace").decode() for k, v in (known | filled).items()}
        return {"index": self.index} | clean

    def __str__(self) -> str:
        """In short: what stood in front and how it went on, or a gap and what became of it."""
        said = self.text if self.filled in (None, self.prompt) else self.filled
        prompt, text = (" ".join(side.split()) for side in (self.prompt, said))
        if not _GAP.search(prompt):
            return f"{_end(prompt)} -> {_beginning(text)}"
        pairs = enumerate(zip(prompt, text, strict=False))
        same = next((place for place, (mine, theirs) in pairs if mine != theirs), len(prompt))
        begin = prompt.rfind(" ", 0, max(same - _SHOWN // 4, 0)) + 1
        before = "..." * bool(begin)
        return f"{before}{_beginning(prompt[begin:])} -> {before}{_beginning(text[begin:])}"


def _end(text: str) -> str:
    return text if len(text) <= _SHOWN else f"...{text[-_SHOWN:]}"


def _beginning(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def lines(step: int, samples: Sequence[Sample]) -> str:
    """The lines of `samples.jsonl`."""
    rows = ({"step": step, **sample.fields} for sample in samples)
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
