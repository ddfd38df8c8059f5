"""Scores of a unigram model whose sums are exact.

SentencePiece adds up the scores of a text in float32, other programs in float64, and where two
segmentations are equally good but for rounding ("--" "-" and "-" "--", always) each finds its own.
Multiples of 1/32 add up exactly up to 2^19 in either, which 16,384 characters stay below; then the
first one wins in both, and a long text has the ids of its parts.

The scores are put in their place in the serialised model (protocol buffers, "Encoding";
sentencepiece_model.proto: field 1 of the model is a piece, field 2 of a piece its score), because
the classes that come with sentencepiece ask for one version of protobuf.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PER_NAT = 32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PIECE, _SCORE = 1 << 3 | _BYTES, 2 << 3 | _FIXED32


def rounded(model: bytes) -> bytes:
    """A serialised SentencePiece model with all scores rounded to multiples of 1 / `PER_NAT`."""
    content = bytearray(model)
    for tag, start, stop in _fields(model, 0, len(model)):
        if tag == _PIECE:
            for inner, at, _ in _fields(model, start, stop):
                if inner == _SCORE:
                    (score,) = struct.unpack_from("<f", model, at)
                    struct.pack_into("<f", content, at, round(score * PER_NAT) / PER_NAT)
    return bytes(content)


def _fields(content: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(tag, start, stop) of the content of each field of a message."""
    while at < stop:
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _varint(content, at)
        elif kind == _VARINT:
            size = _varint(content, at)[1] - at
        else:
            size = {_FIXED32: 4, _FIXED64: 8}[kind]
        yield tag, at, at + size
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """(number, where the next field begins)."""
    number = shift = 0
    while True:
        byte = content[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
