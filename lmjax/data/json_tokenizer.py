"""A published tokenizer.json with the face of every tokenizer: WordPiece, BPE, some Unigram.

Ids are those of transformers with `add_special_tokens=False, split_special_tokens=True`: text that
spells a special token stays text. Byte-level BPE loses nothing, but for a normalizer of its own
(NFC of Qwen and ModernBERT) and a prefix space. Pieces with byte fallback, BPE or Unigram, are like
our own tokenizers, as exports have them: "▁" stands for a space and comes back as one. WordPiece
loses white space, case and accents where it is uncased, and what it has no piece for, which becomes
the unknown id: there `decode` is not the inverse of `encode`.

The folder holds our `tokenizer_config.json` and, in `published/`, all files as they came.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lmjax import paths
from lmjax.batch import Ids
from lmjax.data import files as files_lib
from lmjax.data import published_tokenizer, tokenizer_folder
from lmjax.data.published_tokenizer import (
    BYTE_FALLBACK,
    BYTE_LEVEL,
    FILES,
    KINDS,
    MAIN_FILE,
    SPACE,
    SPECIAL,
    WORDPIECE,
)
from lmjax.errors import UserError

# Callers have threads of their own, one per chunk of text; the library reads this at each call.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TYPE = MAIN_FILE
PUBLISHED = "published"
MAX_PART_CHARS = 1 << 14
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
# GPT-2's sign for each byte: itself where it can be printed, else the next one from U+0100 on.
_BYTES = {chr(byte): bytes([byte]) for byte in _PRINTABLE}
_BYTES |= {chr(0x100 + n): bytes([byte]) for n, byte in enumerate(_OTHERS)}
_BREAK = re.compile(r"(?<=\S) (?=\S)")
_PROBE = "Two words, 12 34 (x) 'y a\u0301 \u00e9t\u00e9 \u6771\u4eac \u4eac it's -- so. z"


class JsonTokenizer:
    """Encodes and decodes. Immutable, safe to share between threads, pickles as its files.

    Attributes:
      published_files: content by name, as they came.
      kind: one of `KINDS`.
      vocab_size: one more than the largest id.
      special_ids: named ones, all others that are no text, and numbers without a token.
      unused_ids: numbers without a token.
      cls_id, sep_id, bos_id, eos_id: BERT's CLS and SEP also are its bos and eos, where it names
        both; a model without bos begins with eos. None: there is none, as for `mask_id`, `unk_id`.
      pad_id: eos where there is none; padding is told by segment ids anyway.
      decoder_start_id: of an encoder-decoder that names it.
    """

    def __init__(
        self, published: Mapping[str, bytes], special: Mapping[str, int | None] | None = None
    ) -> None:
        """Reads the files.

        Args:
          published: content by name, names from `FILES`, `MAIN_FILE` among them.
          special: id by name, names from `SPECIAL`; None: those that the files name.

        Raises:
          ValueError: a damaged file, or a special id outside the vocabulary.
          UserError: a kind that is not supported, or one whose text can spell special ids.
        """
        document, encoder = published_tokenizer.read(published)
        self.kind = published_tokenizer.kind(document, encoder)
        if self.kind not in KINDS:
            raise UserError(f"{MAIN_FILE} is {self.kind}; supported are {', '.join(KINDS)}")
        if (
            self.kind == WORDPIECE
            and encoder.token_to_id(unknown := encoder.model.unk_token) is None
        ):
            raise ValueError(
                f"{MAIN_FILE}: no piece is {unknown!r:.40}, which unknown words become"
            )
        special = (
            published_tokenizer.special_ids(published, encoder) if special is None else special
        )
        named = {name: special.get(name) for name in SPECIAL}
        self.published_files = dict(published)
        self._encoder = published_tokenizer.prepared(
            encoder, self.kind, document, set(named.values())
        )
        self._vocab = {i: t for t, i in encoder.get_vocab(with_added_tokens=True).items()}
        self.vocab_size = 1 + max(self._vocab, default=-1)
        tokenizer_folder.check_num_ids(self.vocab_size)
        for name, token in named.items():
            if token is not None and not (type(token) is int and 0 <= token < self.vocab_size):
                raise ValueError(f"special id {name}={token!r} is outside [0, {self.vocab_size})")
        self._name_ids(named)
        self._set_special_ids(named)
        main_sha256 = hashlib.sha256(published[MAIN_FILE]).hexdigest()
        self.sha256 = hashlib.sha256(json.dumps([main_sha256, named]).encode()).hexdigest()
        self.config = {
            "format": tokenizer_folder.FORMAT,
            "type": TYPE,
            "sha256": self.sha256,
            "vocab_size": self.vocab_size,
            "requested_vocab_size": self.vocab_size,
            "special": named,
            "files": {k: hashlib.sha256(v).hexdigest() for k, v in sorted(published.items())},
        }
        self._check_no_text_is_special(named)
        self._may_be_cut = self._cuts_change_nothing()

    def _name_ids(self, named: Mapping[str, int | None]) -> None:
        self.cls_id, self.sep_id = named["cls"], named["sep"]
        self.bos_id, self.eos_id = named["bos"], named["eos"]
        if self.cls_id is not None and self.sep_id is not None:
            self.bos_id, self.eos_id = self.cls_id, self.sep_id
        self.bos_id = self.eos_id if self.bos_id is None else self.bos_id
        self.pad_id = self.eos_id if named["pad"] is None else named["pad"]
        self.unk_id, self.mask_id = named["unk"], named["mask"]
        self.decoder_start_id = named["decoder_start"]

    def _set_special_ids(self, named: Mapping[str, int | None]) -> None:
        added = self._encoder.get_added_tokens_decoder()
        self._added = {i for i, token in added.items() if not token.special}
        no_text = {i for i, token in added.items() if token.special}
        self.unused_ids = tuple(i for i in range(self.vocab_size) if i not in self._vocab)
        no_text |= set(self.unused_ids)
        self._no_text = no_text | {i for i in named.values() if i is not None}
        self.special_ids = tuple(sorted(self._no_text))

    @property
    def mask_takes_space(self) -> tuple[bool, bool]:
        """Whether white space (before, behind) a mask belongs to it, as the files say."""
        mask = self._encoder.get_added_tokens_decoder().get(self.mask_id)
        return (mask.lstrip, mask.rstrip) if mask else (False, False)

    @cached_property
    def sentinels(self) -> tuple[int, int] | tuple[None, None]:
        """(first, how many) of T5's, which count down above all text; (None, None): it has none."""
        number = {token: i for i, token in self._vocab.items()}
        first, count = number.get("<extra_id_0>"), 0
        if first is None:
            return None, None
        while number.get(f"<extra_id_{count}>") == first - count:
            count += 1
        above = all(i in self._no_text for i in range(first - count + 1, self.vocab_size))
        return (first, count) if above else (None, None)

    def _check_no_text_is_special(self, named: Mapping[str, int | None]) -> None:
        known = {k: i for k, i in named.items() if i is not None and k != "decoder_start"}
        if self.kind == WORDPIECE:  # where a sign without a piece becomes unk
            known = {k: i for k, i in known.items() if i != named["unk"]}
        for name, token in known.items():
            if token in self._ids(self.piece(token)):
                raise UserError(
                    f"{MAIN_FILE}: text that spells {self.piece(token)} would become the "
                    f"{name} id, which only a tokenizer may set"
                )

    def _cuts_change_nothing(self) -> bool:
        """Whether a space between two other characters always is where words begin."""
        words = self._encoder.pre_tokenizer
        normal = self._encoder.normalizer
        if words is None:
            return False
        text = _PROBE if normal is None else normal.normalize_str(_PROBE)
        if any({" ", SPACE} & set(text[a + 1 : b]) for _, (a, b) in words.pre_tokenize_str(text)):
            return False
        cuts = [match.start() for match in _BREAK.finditer(_PROBE)]
        whole = self._ids(_PROBE)
        parts = ((self._ids(_PROBE[:at]), self._ids(_PROBE[at:])) for at in cuts)
        return all(np.array_equal(whole, np.concatenate(both)) for both in parts)

    def __reduce__(self) -> tuple:
        return JsonTokenizer, (self.published_files, self.config["special"])

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the tokenizer's files to an existing local folder."""
        below = os.path.join(folder, PUBLISHED)
        with files_lib.writing(below):
            os.makedirs(below, exist_ok=True)
        for name, content in self.published_files.items():
            files_lib.write_whole(os.path.join(below, name), content)
        tokenizer_folder.write_config(folder, self.config)

    def encode_batch(self, texts: Sequence[str], num_threads: int = 1) -> list[np.ndarray]:
        """Ids of each text, int32 [length]; no special ids are added.

        Runs in the caller's thread, outside Python's lock. Long texts are encoded in parts where
        that gives the ids of the whole.
        """
        del num_threads
        return [
            np.concatenate([self._ids(part) for part in self._parts(text)], dtype=np.int32)
            for text in texts
        ]

    def encode(self, text: str) -> np.ndarray:
        """Ids of one text, int32 [length]."""
        return self.encode_batch([text])[0]

    def encode_spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """As `Tokenizer.encode_spans`; a character that is no part of an id is in no span."""
        encoding = self._encoder.encode(text, add_special_tokens=False)
        spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        return np.array(encoding.ids, np.int32), spans

    def _ids(self, text: str) -> np.ndarray:
        (encoding,) = self._encoder.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encoding.ids, np.int32)

    def _parts(self, text: str) -> Iterator[str]:
        start = 0
        while self._may_be_cut and len(text) - start > MAX_PART_CHARS:
            match = _BREAK.search(text, start + MAX_PART_CHARS)
            if match is None:
                break
            yield text[start : match.start()]
            start = match.start()
        yield text[start:]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of a sequence of ids; special ids stand for nothing."""
        plain = [i for i in np.asarray(ids, np.int64).tolist() if i not in self._no_text]
        if plain and max(plain) >= self.vocab_size:
            raise ValueError(f"id {max(plain)} is outside the vocabulary of {self.vocab_size}")
        return self._encoder.decode(plain, skip_special_tokens=False)

    def ids(self, num_rows: int) -> Ids:
        """What an objective has to know of the ids, for an embedding of `num_rows` rows.

        Raises:
          UserError: there is no id that ends a text.
        """
        if self.eos_id is None:
            raise UserError(
                "the tokenizer names no token that ends a text, and documents need one between "
                "them: set eos_token in its published tokenizer_config.json and import it again"
            )
        first_sentinel, num_sentinels = self.sentinels
        return Ids(
            num_ids=self.vocab_size,
            num_rows=num_rows,
            pad=self.pad_id,
            eos=self.eos_id,
            unk=self.unk_id,
            bos=self.bos_id,
            mask=self.mask_id,
            special=self.special_ids,
            first_sentinel=first_sentinel,
            num_sentinels=num_sentinels,
        )

    def piece(self, token: int) -> str:
        """How one id is shown: as the files call it, "Ġ" for a space of byte-level BPE."""
        return self._vocab.get(int(token), f"<{int(token)}>")

    @property
    def continuing_prefix(self) -> str | None:
        """What pieces begin with that continue a word, and all others start one; else None."""
        return self._encoder.model.continuing_subword_prefix if self.kind == WORDPIECE else None

    @property
    def surfaces(self) -> list[bytes]:
        """UTF-8 of the text that each id stands for, perhaps a part of a character or nothing.

        Exact for BPE and Unigram, of the text as its normalizer leaves it. Of WordPiece an
        approximation: a piece that begins a word has a space before it.
        """
        return [self._surface(i, self._vocab.get(i, "")) for i in range(self.vocab_size)]

    def _surface(self, token: int, piece: str) -> bytes:
        if token in self._no_text:
            return b""
        if token in self._added:
            return piece.encode()
        if self.kind == BYTE_LEVEL:
            return b"".join(_BYTES.get(sign) or sign.encode() for sign in piece)
        if self.kind == BYTE_FALLBACK:
            is_byte = _BYTE.fullmatch(piece)
            return bytes.fromhex(piece[3:5]) if is_byte else piece.replace(SPACE, " ").encode()
        rest = piece.removeprefix(self.continuing_prefix)
        return b" " * (rest == piece and piece[:1].isalnum()) + rest.encode()

    @cached_property
    def bytes_per_id(self) -> np.ndarray:
        """UTF-8 bytes of text that each id stands for, int32 [vocab_size]; 0 for special ids."""
        return np.array([len(surface) for surface in self.surfaces], np.int32)


def load(folder: str | os.PathLike, config: Mapping[str, Any]) -> JsonTokenizer:
    """The tokenizer of a folder or URL.

    Raises:
      UserError: a file is missing or damaged.
    """
    published = {}
    for path in file_names(config):
        name, content = os.path.basename(path), tokenizer_folder.read(folder, path)
        if hashlib.sha256(content).hexdigest() != config["files"][name]:
            raise UserError(
                f"{paths.join(folder, path)}: not the file its SHA-256 promises; "
                f"{tokenizer_folder.RESTORE}"
            )
        published[name] = content
    return JsonTokenizer(published, config["special"])


def file_names(config: Mapping[str, Any]) -> list[str]:
    """Names of the published files in the folder with a config.

    Raises:
      ValueError: some are no files of a tokenizer.
    """
    if outside := [name for name in config["files"] if name not in FILES]:
        raise ValueError(f"{outside[0]!r} is no file of a tokenizer")
    return [f"{PUBLISHED}/{name}" for name in config["files"]]
