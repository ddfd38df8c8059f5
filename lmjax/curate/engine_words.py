"""The engine's words and sentences of a language, found as fast as they can be.

Splitting is most of what the rules of quality do. Four of them split the same text, which is done
once here. And the engine has spaCy forget each text's vocabulary, so that every word is looked into
anew, which takes three quarters of the time; here the first words that come are kept.
"""

from __future__ import annotations

import contextlib

from datatrove.utils.word_tokenizers import (
    SpaCyTokenizer,
    WordTokenizer,
    load_word_tokenizer,
    strip_strings,
)

_WORDS_KEPT = 200_000  # of each language; 50 MB


class EngineWords(WordTokenizer):
    """What the engine's filters take for a language; gives what the engine's own would."""

    def __init__(self, language: str) -> None:
        """For a language by the engine's code."""
        super().__init__(language)
        self._engine = load_word_tokenizer(language)
        self._text: str | None = None
        self._words: list[str] = []

    def word_tokenize(self, text: str) -> list[str]:
        """Words of a text; those of the last one are remembered."""
        if text != self._text:
            self._words, self._text = self._split(text), text
        return self._words

    def sent_tokenize(self, text: str) -> list[str]:
        return self._engine.sent_tokenize(_bearable(text))

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return self._engine.span_tokenize(_bearable(text))

    def _split(self, text: str) -> list[str]:
        text = _bearable(text)
        if not isinstance(self._engine, SpaCyTokenizer):
            return self._engine.word_tokenize(text)
        spacy = self._engine.tokenizer
        spacy.max_length = len(text) + 1
        full = len(spacy.vocab) >= _WORDS_KEPT
        with spacy.memory_zone() if full else contextlib.nullcontext():
            return strip_strings([token.text for token in spacy.make_doc(text)])


def _bearable(text: str) -> str:
    """Without a name of spaCy's own, at which it fails now and then, by what it has read before."""
    return text.replace("IS_ALPHA", "")
