"""A SentencePiece model -> the `tokenizer.json` of the `tokenizers` library, equal id for id.

Both libraries look for the same segmentation. Three things are brought in line here:

- SentencePiece never finds a control symbol or a byte's name in text. To `tokenizers`' Unigram they
  are pieces like others, so they get a score below that of any other way to write them; and where a
  character of theirs has no piece, so that there is no other way, no other piece has it either, and
  the text is split around it before Unigram sees it.
- The merges of BPE are not in the model: they are all ways to put a piece together, in the order of
  the pieces. Among those of one piece SentencePiece takes the leftmost in the text.
- Where no piece has a space behind its first character, texts are split before each space. That
  changes no id, only the speed.

What stays is arithmetic: SentencePiece adds scores in float32, `tokenizers` in float64, and two
segmentations that are equally good but for rounding may be told apart differently ("--" "-" and "-"
"--"). The sums of scores that are multiples of a power of two are exact in both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmjax.errors import UserError

Pieces = Sequence[tuple[str, float | None]]  # by id; score None: no text spells it

TEXT = "$A"  # in a frame: where the text goes
_SPACE = "▁"
_NEVER = -10_000.0  # a score below those of as many pieces as a name has characters


@dataclass(frozen=True)
class Special:
    """A token that text spells, unless the user says `split_special_tokens`.

    Attributes:
      content, id: of a piece without a score, or of a token behind the pieces; those have ids in
        a row, or `tokenizers` would number them anew.
      takes_space: whether white space in front of it belongs to it.
    """

    content: str
    id: int
    takes_space: bool = False


def from_sentencepiece(
    pieces: Pieces,
    model_type: str,
    unk_id: int,
    specials: Sequence[Special],
    frame: Sequence[str] = (TEXT,),
    *,
    pair_type: int = 0,
) -> bytes:
    """The content of tokenizer.json.

    Args:
      pieces: of a model that leaves the text alone (`identity`, no space added) and falls back to
        bytes.
      model_type: "unigram" or "bpe".
      unk_id: of the piece for what is unknown; with bytes nothing is.
      specials: in the order of their ids.
      frame: what a text is put into: contents of `specials` and `TEXT`.
      pair_type: type of the tokens of the second of two texts.

    Raises:
      UserError: another model type, or ids of specials that leave out numbers.
    """
    if model_type not in ("unigram", "bpe"):
        raise UserError(f"a tokenizer of type {model_type!r} cannot be said by tokenizer.json")
    behind = [special.id for special in specials if special.id >= len(pieces)]
    if behind != list(range(len(pieces), len(pieces) + len(behind))):
        raise UserError(f"special ids {behind[:3]}... do not follow on {len(pieces)} pieces")
    text = {piece: number for number, (piece, score) in enumerate(pieces) if score is not None}
    is_unigram = model_type == "unigram"
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(special) for special in specials],
        "normalizer": _replace(" ", _SPACE),
        "pre_tokenizer": _sequence("pretokenizers", _splits(pieces, text, is_unigram)),
        "post_processor": _framed({s.content: s.id for s in specials}, frame, pair_type),
        "decoder": _sequence(
            "decoders", [_replace(_SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
        ),
        "model": _unigram(pieces, unk_id) if is_unigram else _bpe(pieces, text, unk_id),
    }
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()


def _unigram(pieces: Pieces, unk_id: int) -> dict[str, Any]:
    vocab = [(piece, _NEVER if score is None else score) for piece, score in pieces]
    return {"type": "Unigram", "unk_id": unk_id, "vocab": vocab, "byte_fallback": True}


def _bpe(pieces: Pieces, text: Mapping[str, int], unk_id: int) -> dict[str, Any]:
    merges = []
    for piece in text:
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in text and right in text:
                merges.append((-pieces[text[piece]][1], at, (left, right)))
    return {
        "type": "BPE",
        "vocab": {piece: number for number, (piece, _) in enumerate(pieces)},
        "merges": [merge for *_, merge in sorted(merges)],
        "unk_token": pieces[unk_id][0],
        "fuse_unk": False,
        "byte_fallback": True,
        "dropout": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "ignore_merges": False,
    }


def _splits(pieces: Pieces, text: Mapping[str, int], is_unigram: bool) -> list[dict[str, Any]]:
    splits = []
    if not any(_SPACE in piece[1:] for piece in text):
        splits.append(_split(_SPACE, "MergedWithNext"))
    if is_unigram:
        names = [piece for piece, score in pieces if score is None]
        foreign = {next((c for c in name if c not in text), None) for name in names}
        splits += [_split(c, "Isolated") for c in sorted(foreign - {None})]
    return splits


def _split(at: str, behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"String": at}, "behavior": behavior, "invert": False}


def _replace(what: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": what}, "content": content}


def _sequence(name: str, parts: list[dict[str, Any]]) -> dict[str, Any] | None:
    return {"type": "Sequence", name: parts} if parts else None


def _added(special: Special) -> dict[str, Any]:
    return {
        "id": special.id,
        "content": special.content,
        "single_word": False,
        "lstrip": special.takes_space,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _framed(ids: Mapping[str, int], frame: Sequence[str], pair_type: int) -> dict[str, Any]:
    """One text in its frame; a second one follows with what stands behind the first."""

    def part(name: str, text: str, kind: int) -> dict[str, Any]:
        if name == TEXT:
            return {"Sequence": {"id": text, "type_id": kind}}
        return {"SpecialToken": {"id": name, "type_id": kind}}

    single = [part(name, "A", 0) for name in frame]
    second = [part(name, "B", pair_type) for name in frame[list(frame).index(TEXT) :]]
    used = {name: ids[name] for name in frame if name != TEXT}
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single + second,
        "special_tokens": {
            name: {"id": name, "ids": [token], "tokens": [name]} for name, token in used.items()
        },
    }
