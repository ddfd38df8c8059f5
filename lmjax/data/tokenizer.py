"""Text to ids and back: one face for every kind of tokenizer, SentencePiece behind it.

The first ids are the same for all: padding 0, end and separator 1, unknown 2, beginning and
classification 3, mask 4; then the 256 bytes, then pieces. They are control symbols, so text that
spells one stays text. Nothing in a text is lost: white space is kept as it is and characters
without a piece become bytes, so `decode(encode(x)) == x` (only U+2581, SentencePiece's own sign for
a space, comes back as a space).

A tokenizer is a folder: `tokenizer.model` and `tokenizer_config.json`, which says of what type it
is and the model's SHA-256. A folder with only a config of type "ids" belongs to a model that was
imported without its tokenizer: its special ids are known, and are any numbers, but text is not.
One of type "tokenizer.json" came with an imported model (`data.json_tokenizer`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NoReturn

import numpy as np
import sentencepiece as spm

from lmjax import paths
from lmjax.batch import Ids
from lmjax.data import files as files_lib
from lmjax.data import json_tokenizer, published_tokenizer, tokenizer_folder
from lmjax.data.json_tokenizer import JsonTokenizer
from lmjax.data.tokenizer_folder import CONFIG_FILE, RESTORE
from lmjax.errors import UserError, reason

PAD_ID, EOS_ID, UNK_ID, BOS_ID, MASK_ID = Ids.special
MASK_PIECE = "<mask>"
MODEL_FILE = "tokenizer.model"
MAX_PIECE_CHARS = 1 << 14  # at most 64 KiB of UTF-8 go to the encoder at once
_SPACE = "▁"
_DAMAGED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)  # anyone's JSON


class Tokenizer:
    """Encodes and decodes. Immutable, safe to share between threads, pickles as its model."""

    pad_id, eos_id, unk_id, bos_id, mask_id = PAD_ID, EOS_ID, UNK_ID, BOS_ID, MASK_ID
    special_ids = Ids.special
    unused_ids = ()
    decoder_start_id = None  # that of an encoder-decoder is its family's choice
    continuing_prefix = None  # a piece that begins a word brings its space along
    mask_takes_space = (True, False)  # so white space (before, behind) a mask is what it hides

    def __init__(self, model: bytes, config: dict) -> None:
        """`model`: a serialised SentencePiece model; `config`: content of the config file.

        Raises:
          ValueError: `model` is none, or one or the other says an impossible number of ids.
        """
        self.config = config
        self.sha256 = hashlib.sha256(model).hexdigest()
        self._model = model
        try:
            self._encoder = spm.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, OSError, TypeError) as error:
            raise ValueError(f"{MODEL_FILE}: {reason(error)}") from None
        self.vocab_size = self._encoder.vocab_size()
        tokenizer_folder.check_num_ids(self.vocab_size)
        tokenizer_folder.check_num_ids(config.get("requested_vocab_size", self.vocab_size))

    def __reduce__(self) -> tuple:
        return Tokenizer, (self._model, self.config)

    @property
    def pieces(self) -> list[tuple[str, float | None]]:
        """Each id's piece and score; None for special ids and bytes, which text cannot spell."""
        model = self._encoder
        scored = lambda i: not (model.is_control(i) or model.is_unknown(i) or model.is_byte(i))
        return [
            (model.id_to_piece(i), model.get_score(i) if scored(i) else None)
            for i in range(self.vocab_size)
        ]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the tokenizer's files to an existing local folder."""
        files_lib.write_whole(os.path.join(folder, MODEL_FILE), self._model)
        tokenizer_folder.write_config(folder, self.config)

    def encode_batch(self, texts: Sequence[str], num_threads: int = 1) -> list[np.ndarray]:
        """Ids of each text, int32 [length]; no special ids are added.

        Texts above 16,384 characters are encoded in parts cut before a space. No piece has a space
        but at its start, so the ids are those of the whole text, unless a part has no space; a
        unigram model whose scores `data.scores` has not rounded may settle
        near-ties better on the parts.
        """
        if all(len(text) <= MAX_PIECE_CHARS for text in texts):
            return self._encoder.encode_as_numpy(list(texts), num_threads=num_threads)
        parts = [list(cut(text, MAX_PIECE_CHARS)) for text in texts]
        flat = [part for of_text in parts for part in of_text]
        ids = iter(self._encoder.encode_as_numpy(flat, num_threads=num_threads))
        return [
            np.concatenate([next(ids) for _ in of_text], dtype=np.int32)
            if of_text
            else np.zeros(0, np.int32)
            for of_text in parts
        ]

    def encode(self, text: str) -> np.ndarray:
        """Ids of one text, int32 [length]."""
        if len(text) > MAX_PIECE_CHARS:
            return self.encode_batch([text])[0]
        return np.array(self._encoder.encode(text), np.int32)  # a batch of one costs ten times that

    def encode_spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids of one text, and the characters that each comes from.

        Returns:
          (int32 [length], int64 [length, 2]: first character, and the one behind the last; of a
          character in several bytes each has it whole).
        """
        ids_N = self.encode(text)
        length_N = self.bytes_per_id[ids_N].astype(np.int64)
        end_N = np.cumsum(length_N)
        # A sign for a space that stands in the text is a space to the encoder.
        content = np.frombuffer(text.replace(_SPACE, " ").encode(), np.uint8)
        char_M = np.cumsum((content & 0xC0) != 0x80) - 1  # of each byte
        char_M = np.append(char_M, len(text))
        return ids_N, np.stack([char_M[end_N - length_N], char_M[end_N - 1] + 1], axis=1)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of a sequence of ids; special ids stand for nothing."""
        plain = [i for i in np.asarray(ids, np.int64).tolist() if i >= len(self.special_ids)]
        if plain and max(plain) >= self.vocab_size:
            raise ValueError(f"id {max(plain)} is outside the vocabulary of {self.vocab_size}")
        return self._encoder.decode(plain)

    def ids(self, num_rows: int) -> Ids:
        """What an objective has to know of the ids, for an embedding of `num_rows` rows."""
        return Ids(num_ids=self.vocab_size, num_rows=num_rows)

    def piece(self, token: int) -> str:
        """How one id is shown: its piece, "▁" for a space, "<0x0A>" for a byte."""
        return self._encoder.id_to_piece(int(token))

    @property
    def surfaces(self) -> list[bytes]:
        """UTF-8 of the text that each id stands for, perhaps a part of a character or nothing."""
        model, num_special = self._encoder, len(self.special_ids)
        plain = (
            bytes.fromhex(piece[3:5]) if model.is_byte(i) else piece.replace(_SPACE, " ").encode()
            for i in range(num_special, self.vocab_size)
            for piece in (model.id_to_piece(i),)
        )
        return [b""] * num_special + list(plain)

    @cached_property
    def bytes_per_id(self) -> np.ndarray:
        """UTF-8 bytes of text that each id stands for, int32 [vocab_size]; 0 for special ids."""
        return np.array([len(surface) for surface in self.surfaces], np.int32)


class IdsTokenizer:
    """What is known of an unknown tokenizer: how many ids it has and which of them are special."""

    SPECIAL = published_tokenizer.SPECIAL
    unused_ids = ()

    def __init__(self, vocab_size: int, special: Mapping[str, int | None]) -> None:
        """`special`: id by name, names from `SPECIAL`; None or left out: there is none.

        Raises:
          ValueError: an unknown name, or an id outside the vocabulary.
        """
        if not isinstance(vocab_size, int) or vocab_size < 1:
            raise ValueError(f"vocab_size={vocab_size!r} is no number of ids")
        for name, token in special.items():
            if name not in self.SPECIAL:
                raise ValueError(f"{name!r} is no special id; there are {', '.join(self.SPECIAL)}")
            if token is not None and not 0 <= token < vocab_size:
                raise ValueError(f"special id {name}={token} is outside [0, {vocab_size})")
        ids = {name: special.get(name) for name in self.SPECIAL}
        self.vocab_size = vocab_size
        self.config = {
            "format": tokenizer_folder.FORMAT,
            "type": "ids",
            "vocab_size": vocab_size,
            "special": ids,
        }
        self.sha256 = hashlib.sha256(json.dumps(self.config).encode()).hexdigest()
        self.special_ids = tuple(sorted({i for i in ids.values() if i is not None}))
        self.pad_id, self.eos_id, self.unk_id = ids["pad"], ids["eos"], ids["unk"]
        self.bos_id, self.mask_id = ids["bos"], ids["mask"]
        self.decoder_start_id = ids["decoder_start"]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the config file to an existing local folder."""
        tokenizer_folder.write_config(folder, self.config)

    def encode_batch(self, texts: Sequence[str], num_threads: int = 1) -> NoReturn:
        """Raises UserError, as `encode` and `decode` do."""
        raise UserError(
            "this model was imported without its tokenizer, so it takes ids and no text; give "
            "token_ids, or source_ids and target_ids, made with the tokenizer it was trained with"
        )

    def encode(self, text: str) -> NoReturn:
        """Raises UserError."""
        self.encode_batch([text])

    def encode_spans(self, text: str) -> NoReturn:
        """Raises UserError."""
        self.encode_batch([text])

    def decode(self, ids: Sequence[int] | np.ndarray) -> NoReturn:
        """Raises UserError."""
        raise UserError(
            "this model was imported without its tokenizer, so its ids cannot be turned into "
            "text; decode them with the tokenizer it was trained with"
        )


AnyTokenizer = Tokenizer | JsonTokenizer | IdsTokenizer


def cut(text: str, max_chars: int) -> Iterator[str]:
    """Cuts a text to parts of at most `max_chars`, each before a space where there is one."""
    start = 0
    while len(text) - start > max_chars:
        end = text.rfind(" ", start + 1, start + max_chars + 1)
        end = end if end > start else start + max_chars
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def load(path: str | os.PathLike) -> AnyTokenizer:
    """Loads the tokenizer of a folder or URL.

    Raises:
      UserError: the folder or a file of it is missing, damaged or of an unknown type.
    """
    content = tokenizer_folder.read(path, CONFIG_FILE)
    try:
        config = json.loads(content)
        kind = config["format"], config["type"]
        if kind == (tokenizer_folder.FORMAT, "ids"):
            return IdsTokenizer(config["vocab_size"], config.get("special", {}))
        if kind == (tokenizer_folder.FORMAT, json_tokenizer.TYPE):
            return json_tokenizer.load(path, config)
        if kind != (tokenizer_folder.FORMAT, "sentencepiece"):
            what = f"tokenizer type {kind[1]!r:.40}, format {kind[0]!r:.40}"
            raise UserError(f"{path}: {what} is unknown here; update lmjax or {RESTORE}")
        model = tokenizer_folder.read(path, MODEL_FILE)
        if hashlib.sha256(model).hexdigest() != config["sha256"]:
            file = paths.join(path, MODEL_FILE)
            raise UserError(f"{file}: not the file its SHA-256 promises; {RESTORE}")
        return Tokenizer(model, config)
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def file_names(folder: str | os.PathLike) -> list[str]:
    """Names of all files that make the tokenizer of a folder or URL.

    Raises:
      UserError: its config file is missing or damaged.
    """
    content = tokenizer_folder.read(folder, CONFIG_FILE)
    try:
        config = json.loads(content)
        if config["type"] == json_tokenizer.TYPE:
            return [*json_tokenizer.file_names(config), CONFIG_FILE]
        return [CONFIG_FILE] if config["type"] == "ids" else [MODEL_FILE, CONFIG_FILE]
    except _DAMAGED as error:
        raise _damaged(folder, error) from error


def copy(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copies the files of a tokenizer, and what else is in its folder not, to a local folder.

    Raises:
      UserError: one is missing, or the config file is damaged.
    """
    for name in file_names(source):
        file = os.path.join(target, name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        files_lib.write_whole(file, tokenizer_folder.read(source, name))


def _damaged(folder: str | os.PathLike, error: Exception) -> UserError:
    return UserError(f"{paths.join(folder, CONFIG_FILE)}: damaged ({reason(error)}); {RESTORE}")
