"""Words of any language by one rule, for duplicates and contamination: fast, and without a model.

A word is a run of letters and digits; characters of scripts that are written without spaces are
words of their own.
"""

from __future__ import annotations

import regex
from datatrove.utils.word_tokenizers import WordTokenizer

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Yi}"
_WORD = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[\p{{L}}\p{{N}}\p{{M}}_--[{_UNSPACED}]]+", regex.V1)


class Words(WordTokenizer):
    """As the engine wants it."""

    def word_tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return text.splitlines()

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [found.span() for found in _WORD.finditer(text)]
