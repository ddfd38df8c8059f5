"""Rules of quality: those of Gopher, C4 and FineWeb for English, and what fits of them elsewhere.

English is judged as FineWeb was (Penedo et al. 2024): Gopher's repetition and quality rules, C4's
without the rule of the last character of a line, FineWeb's own. For other languages:

- where words can be told (spaCy's blank pipelines), the same rules, but for Gopher's bounds on the
  average length of a word and C4's on sentences and phrases, which are English; Gopher's two stop
  words are those of the language, where spaCy has any;
- where they cannot (Chinese, Japanese, Thai, ..., or no known language), only rules of lines and
  paragraphs.

What was left out is told of each language by `left_out`.
"""

from __future__ import annotations

import csv
import functools
import importlib
import math
from collections.abc import Mapping
from pathlib import Path

import datatrove
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.utils.text import PUNCTUATION_SET, split_into_sentences, split_into_words

from lmjax.curate.engine_words import EngineWords
from lmjax.curate.text_steps import UNKNOWN

ENGLISH = "en"
FAMILIES = ("repetition", "gopher", "c4", "fineweb")

_MIN_ALPHABETIC = 0.8  # share of words, Gopher
_MIN_STOP_WORDS = 2
_UNCOUNTED = -1  # of sentences, as the engine has it
_SHORT_LINE_WITHOUT_WORDS = 10  # characters; a Chinese one is worth about three
# Words of these need packages of their own, or have no boundaries that spaCy's rules would find.
_WITHOUT_WORDS = {"zh", "ja", "ko", "th", "lo", "km", "my", "bo", "vi", "dz"}
_MAIN = {"no": "nb"}  # languages of which spaCy has the main written form
_ANY = "ab"  # a language whose words the engine tells by spaCy's rules for any
_N_GRAMS = "gopher: n-grams"  # of an unknown language any words do
_WORD_RULES = (
    _N_GRAMS,
    "gopher: words",
    "c4: words, sentences and phrases",
    "fineweb: lists",
)


class GopherWords(GopherQualityFilter):
    """Gopher's, whose words are those with something else than punctuation.

    The paper wants a letter in 80 % of the words; spaCy makes a word of each comma, and the engine
    counts them, so that ordinary prose fails.
    """

    def __init__(self, **settings: object) -> None:
        super().__init__(max_non_alpha_words_ratio=None, **settings)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        kept, why = get_filter_result(super().filter(doc))
        if not kept:
            return kept, why
        words = split_into_words(doc.text, self.language)
        words = [word for word in words if any(c not in PUNCTUATION_SET for c in word)]
        alphabetic = sum(any(c.isalpha() for c in word) for word in words)
        if alphabetic < _MIN_ALPHABETIC * len(words):
            return False, "gopher_below_alpha_threshold"
        return True


class C4Lines(C4QualityFilter):
    """C4's, which counts sentences only until there are enough: most texts have by their start."""

    def __init__(self, **settings: object) -> None:
        super().__init__(filter_no_terminal_punct=False, **settings)
        self._enough, self.min_num_sentences = self.min_num_sentences, _UNCOUNTED

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        before = doc.text
        kept, why = get_filter_result(super().filter(doc))
        if not kept:
            return kept, why
        sentences = 0
        for line in doc.text.split("\n") if doc.text else ():
            if sentences >= self._enough:
                break
            sentences += len(split_into_sentences(line, self.language))
        if sentences < self._enough:
            doc.text = before
            return False, "too_few_sentences"
        return True


class Quality:
    """Judges a document by one family of rules, as they are for its language: FAMILY_RULE."""

    def __init__(self, family: str) -> None:
        self.name = family

    def __call__(self, document: Document) -> str | None:
        judge = _rules(document.metadata["language"]).get(self.name)
        if judge is None:
            return None
        kept, why = get_filter_result(judge.filter(document))
        return None if kept else f"{self.name}_{why.removeprefix(f'{self.name}_')}"


@functools.cache
def _rules(language: str) -> Mapping[str, BaseFilter]:
    """By family."""
    words = _engine_words(engine_code(language))
    if language == ENGLISH:
        return {
            "repetition": GopherRepetitionFilter(language=words),
            "gopher": GopherWords(language=words),
            "c4": C4Lines(language=words),
            "fineweb": FineWebQualityFilter(language=words),
        }
    lines = {"min_num_sentences": _UNCOUNTED, "filter_policy": False}
    if not has_words(language):
        none = {"top_n_grams": (), "dup_n_grams": ()} if language != UNKNOWN else {}
        return {
            "repetition": GopherRepetitionFilter(**none, language=words),
            "c4": C4Lines(**lines, min_words_per_line=-1, max_word_length=-1),
            "fineweb": FineWebQualityFilter(
                short_line_length=_SHORT_LINE_WITHOUT_WORDS, new_line_ratio=math.inf, language=words
            ),
        }
    known = stop_words(language)
    gopher = GopherWords(
        min_avg_word_length=None,
        max_avg_word_length=None,
        min_stop_words=_MIN_STOP_WORDS if known else None,
        stop_words=known or None,
        language=words,
    )
    return {
        "repetition": GopherRepetitionFilter(language=words),
        "gopher": gopher,
        "c4": C4Lines(**lines),
        "fineweb": FineWebQualityFilter(language=words),
    }


@functools.cache
def _engine_words(code: str) -> EngineWords:
    return EngineWords(code)


def left_out(language: str) -> list[str]:
    """Rules that do not fit a language, in words."""
    if language == ENGLISH:
        return []
    if not has_words(language):
        return [rule for rule in _WORD_RULES if language != UNKNOWN or rule != _N_GRAMS]
    none = [] if stop_words(language) else ["gopher: stop words, of which none are known"]
    return ["gopher: length of words", "c4: sentences and phrases", *none]


def has_words(language: str) -> bool:
    """Whether words of a language (ISO 639-1) can be told, by spaCy's rules alone."""
    return language not in _WITHOUT_WORDS and _main(language) in _spacy_languages()


def engine_code(language: str) -> str:
    """What the engine calls a language (ISO 639-3) whose words are told, or any."""
    known = _spacy_languages()
    return known.get(_main(language) if has_words(language) else _ANY, known[_ANY])


def _main(language: str) -> str:
    return _MAIN.get(language, language)


@functools.cache
def _spacy_languages() -> dict[str, str]:
    """{ISO 639-1 code: the engine's} of languages that it gives to spaCy.

    In the script that they are mostly written in, which the engine's code says: without it, the
    engine takes the last script of its list, and so a tokenizer of Maltese for Arabic.
    """
    file = Path(datatrove.__file__).parent / "assets" / "tokenizer_assignment.csv"
    with open(file, newline="", encoding="utf-8") as stream:
        return {
            row["code_1"]: f"{row['code_3']}_{row['script']}"
            for row in csv.DictReader(stream)
            if row["code_1"]
            and row["type"] == "SpaCyTokenizer"
            and row["default_code_1"] == row["default_script"] == "TRUE"
        }


@functools.cache
def stop_words(language: str) -> list[str]:
    """Those that spaCy has of a language; none: empty."""
    try:
        module = importlib.import_module(f"spacy.lang.{_main(language)}.stop_words")
    except ImportError:
        return []
    return sorted(module.STOP_WORDS)
