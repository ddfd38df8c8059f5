"""Ends a text where a string appears in it, however its tokens cut that string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmjax.errors import UserError


@dataclass(frozen=True)
class StopStrings:
    """Whether ids spell one of some strings; what `Generator` takes.

    Attributes:
      strings: which.
      decode: ids -> text.

    Raises:
      UserError: one is empty.
    """

    strings: tuple[str, ...]
    decode: Callable[[Sequence[int]], str]

    def __post_init__(self) -> None:
        if not all(self.strings):
            raise UserError("an empty stop string is everywhere; give text, or leave it out")

    def __call__(self, ids: list[int]) -> bool:
        """Whether their text holds one of the strings."""
        text = self.decode(ids)
        return any(string in text for string in self.strings)

    def cut(self, text: str) -> str:
        """What stands before the first of them."""
        found = [text.find(string) for string in self.strings if string in text]
        return text[: min(found, default=len(text))]
