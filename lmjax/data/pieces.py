"""What a vocabulary says of words and sentences, piece by piece (`lmjax.batch.Pieces`).

A word is what a reader would call one: letters, digits and what is written on them; every other
sign is a word by itself, as in BERT; white space belongs to the word behind it. Where a script has
no spaces, a piece is a word, unless the text was segmented: by spaces or by U+200B, the zero width
space, which is Unicode's mark of a word boundary in such scripts (The Unicode Standard, chapter
23.2). That shows in the vocabulary, script by script.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Set
from functools import cache
from typing import NamedTuple

import numpy as np

from lmjax.batch import Pieces
from lmjax.data.json_tokenizer import JsonTokenizer
from lmjax.data.tokenizer import Tokenizer

MARK = "\u200b"
_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001)))) + MARK
_ALWAYS, _YES, _PERHAPS, _NEITHER, _NEVER = 8, 2, 1, 0, -4

# Written without spaces: blocks of the Unicode Standard, and of kana and ideographs their letters.
_BLOCKS = {
    "Han": "\u2e80\u2fdf \u3005\u3007 \u3021\u3029 \u3038\u303b \u3105\u312f \u31a0\u31bf "
    "\u3400\u4dbf \u4e00\u9fff \uf900\ufaff \U00020000\U0003ffff",
    "Hiragana": "\u3041\u309f",
    "Katakana": "\u30a1\u30ff \u31f0\u31ff \uff66\uff9f",
    "Thai": "\u0e00\u0e7f",
    "Lao": "\u0e80\u0eff",
    "Tibetan": "\u0f00\u0fff",
    "Myanmar": "\u1000\u109f \ua9e0\ua9ff \uaa60\uaa7f",
    "Khmer": "\u1780\u17ff",
    "Tai Le": "\u1950\u197f",
    "New Tai Lue": "\u1980\u19df",
    "Tai Tham": "\u1a20\u1aaf",
    "Tai Viet": "\uaa80\uaadf",
    "Balinese": "\u1b00\u1b7f",
    "Javanese": "\ua980\ua9df",
}
_RANGES = [
    (low, high, script)
    for script, blocks in _BLOCKS.items()
    for low, high in (block for block in blocks.split())
]
# What follows one of these is part of the same letter: zero width joiner, stackers.
_JOINERS = ("\u200d", "\u1039", "\u17d2", "\u1a60", "\u1b44", "\ua9c0")

_STOPS_AT_ONCE = "。！？．｡؟۔।॥։።፧፨။།༎។៕꧉"
_STOPS = ".!?…‥"  # only before white space: there are 3.14, example.org and a.m.
_CLOSING = "\"'”’»›)]}）］｝｠」』｣】〕〉》〗〙〛＂＇"
_OF_THE_SENTENCE = _STOPS_AT_ONCE + _STOPS + _CLOSING

# Of the first 100 pieces of several characters, 36 % and more began with a space in Chinese,
# Japanese and Thai text that had one before every word, at most 20 % in text as it is written.
_FIRST, _ENOUGH, _MARKED_SHARE = 100, 8, 0.28


class _Text(NamedTuple):
    """A piece: the end of a character begun before it, whole ones, the beginning of one."""

    head: bool
    text: str
    tail: bytes

    @property
    def body(self) -> str:
        """Without white space and marks before it."""
        return self.text.lstrip(_SPACES)

    @property
    def script(self) -> str | None:
        """The script without spaces that it begins with, white space aside."""
        body = self.body
        return _script(body[0]) if body else None


def make(tokenizer: Tokenizer | JsonTokenizer, num_rows: int) -> Pieces:
    """Votes of all ids of a tokenizer, for an embedding of `num_rows` rows.

    WordPiece has lost the white space, so sentences are approximate there: they end at a full stop
    before a letter or an opening bracket.
    """
    texts = [_decoded(surface) for surface in tokenizer.surfaces]
    prefix, special = tokenizer.continuing_prefix, set(tokenizer.special_ids)
    segmented = _segmented(texts)
    votes_4V = np.empty((4, num_rows), np.int8)
    votes_4V[:] = np.array([[_ALWAYS], [_ALWAYS], [_NEITHER], [_NEVER]])
    for i, piece in enumerate(texts):
        if i not in special:
            votes_4V[2:, i] = _ends_sentence(piece), _starts_sentence(piece)
            if prefix is None:
                votes_4V[:2, i] = _ends_word(piece, segmented), _starts_word(piece, segmented)
            else:
                goes_on = tokenizer.piece(i).startswith(prefix)
                votes_4V[:2, i] = _NEITHER, _NEVER if goes_on else _YES
                if piece.body[:1].isdigit():  # after a full stop perhaps a decimal
                    votes_4V[3, i] = _NEITHER
                elif unicodedata.category(piece.text[:1] or " ") in ("Ps", "Pi"):
                    votes_4V[3, i] = _PERHAPS
    votes_4V[3, votes_4V[1] == _NEVER] = _NEVER  # no sentence begins within a word
    if tokenizer.unk_id is not None:  # a word that the vocabulary lacks
        votes_4V[3, tokenizer.unk_id] = _PERHAPS
    scripts = Counter(piece.script for piece in texts if prefix is None).most_common()
    return Pieces(
        *votes_4V,
        segmented=tuple((s, n) for s, n in scripts if s in segmented),
        unsegmented=tuple((s, n) for s, n in scripts if s and s not in segmented),
    )


def _decoded(surface: bytes) -> _Text:
    try:
        return _Text(False, surface.decode(), b"")
    except UnicodeDecodeError:
        start = 0
    while start < len(surface) and 0x80 <= surface[start] < 0xC0:
        start += 1
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return _Text(start > 0, decoder.decode(surface[start:]), decoder.getstate()[0])


def _segmented(texts: list[_Text]) -> Set[str]:
    """Scripts without spaces whose words the text has marked.

    Pieces never run over a space or a mark, but may begin with one, and frequent ones have low ids.
    So of the first pieces of a script many begin with it; or, where marks are pieces by themselves,
    they are more frequent than any single letter of the script.
    """
    begin_with_it: dict[str, list[bool]] = defaultdict(list)
    first_single: dict[str, int] = {}
    first_mark = len(texts)
    for i, piece in enumerate(texts):
        if MARK in piece.text and not piece.body:
            first_mark = min(first_mark, i)
        if (script := piece.script) is None:
            continue
        if len(piece.text) == 1:
            first_single.setdefault(script, i)
        elif len(begin_with_it[script]) < _FIRST:
            begin_with_it[script].append(len(piece.body) < len(piece.text))
    many = {
        s for s, b in begin_with_it.items() if len(b) >= _ENOUGH and sum(b) > _MARKED_SHARE * len(b)
    }
    return many | {s for s, i in first_single.items() if first_mark < i}


def _starts_word(piece: _Text, segmented: Set[str]) -> int:
    if piece.head:
        return _NEVER
    if not piece.text:  # the first byte of a character
        return _YES if _scripts_of_byte(piece.tail[0]) - segmented else _NEITHER
    first = piece.text[0]
    if _clings(first):
        return _NEVER
    return _vote_of(first, segmented)


def _ends_word(piece: _Text, segmented: Set[str]) -> int:
    text = piece.text
    if piece.tail or text.endswith(_JOINERS) or (text and not piece.body):
        return _NEVER
    for character in reversed(text):
        if not _clings(character) or _script(character):
            return _vote_of(character, segmented)
    return _NEITHER


def _vote_of(character: str, segmented: Set[str]) -> int:
    script = _script(character)
    if script is not None:
        return _NEITHER if script in segmented else _YES
    return _NEITHER if _is_letter(character) else _YES


def _starts_sentence(piece: _Text) -> int:
    text = piece.text
    if text[:1] in _SPACES:
        return _PERHAPS if text else _NEITHER
    return _NEITHER if text.rstrip(_OF_THE_SENTENCE) else _NEVER


def _ends_sentence(piece: _Text) -> int:
    rest = piece.text.rstrip(_SPACES)
    signs = set(rest[len(rest.rstrip(_OF_THE_SENTENCE)) :])
    if piece.tail or signs.isdisjoint(_STOPS + _STOPS_AT_ONCE):
        return _NEITHER
    white_space_follows = len(rest) < len(piece.text)
    return _PERHAPS if signs.isdisjoint(_STOPS_AT_ONCE) and not white_space_follows else _YES


@cache
def _is_letter(character: str) -> bool:
    """Letter, digit or number."""
    return unicodedata.category(character)[0] in "LN"


@cache
def _script(character: str) -> str | None:
    """The script without spaces that a letter, or a mark on one, belongs to."""
    category = unicodedata.category(character)
    if category[0] in "LM" or category == "Nl":
        return next((script for low, high, script in _RANGES if low <= character <= high), None)
    return None


@cache
def _clings(character: str) -> bool:
    """Whether a character is written on, or goes on, what stands before it."""
    category = unicodedata.category(character)
    return (
        category[0] == "M"
        or (category == "Cf" and character != MARK)
        or (category == "Lm" and _script(character) is not None)
    )


@cache
def _scripts_of_byte(byte: int) -> Set[str]:
    """Scripts without spaces that have characters beginning with a byte."""
    return {script for low, high, script in _RANGES if low.encode()[0] <= byte <= high.encode()[0]}
