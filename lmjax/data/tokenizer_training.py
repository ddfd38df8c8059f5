"""Trains a tokenizer on a sample of the text and writes its folder.

SentencePiece is told to leave the text alone (`identity`, white space kept, no space added in
front; Unicode form C is the readers' business) and gets lines, cut to the length it accepts, so
that a newline is always a byte of its own. Its result depends on the number of threads, which is
therefore fixed. Scores of a unigram model are rounded (`scores.py`).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import sentencepiece as spm

from lmjax.data import files as files_lib
from lmjax.data import progress, scores
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.sample import sample_texts
from lmjax.errors import UserError

_THREADS = 16
_SENTENCE_CHARS = 1000  # at most 4000 bytes; SentencePiece would drop longer lines than it is told
_CHARACTERS = 0.75  # of the free ids at most, where they are few; the others are for longer pieces
_NUM_FIXED = len(tokenizer_lib.Tokenizer.special_ids) + 256


@dataclass(frozen=True, slots=True)
class Training:
    """What came out: vocabulary asked for and got, and bytes of text it was trained on."""

    requested_vocab_size: int
    vocab_size: int
    text_bytes: int


def train(
    files: Sequence[str],
    output: str | os.PathLike,
    *,
    vocab_size: int,
    model_type: str,
    character_coverage: float = 0.9995,
    sample_bytes: int = 100_000_000,
    text_key: str = "text",
    text_split: str = "file",
    log: Callable[[str], None] = lambda line: None,
) -> Training:
    """Trains a SentencePiece model on `sample_bytes` of the files' text.

    Where the text cannot support `vocab_size`, the largest vocabulary it can is trained; where that
    is too small for the characters of the text, the rarer ones become bytes. `log` is told of both.

    Args:
      files: as `find_files` gives them.
      output: folder to write; made where it is missing.
      vocab_size: number of ids, special ones and bytes included.
      model_type: "unigram" or "bpe".
      character_coverage: share of the characters that get ids of their own.
      sample_bytes: UTF-8 bytes of text to train on, spread over the files.
      text_key, text_split: as in `read_documents`.

    Raises:
      UserError: there is no text.
    """
    output = os.path.expanduser(os.fspath(output))
    with files_lib.writing(output):
        os.makedirs(output, exist_ok=True)
    counts: Counter[str] = Counter()
    texts = sample_texts(
        files, text_key=text_key, text_split=text_split, num_bytes=sample_bytes, counts=counts
    )
    sentences = [s for text in texts for s in _sentences(text)]
    if not sentences:
        skipped = progress.skipped_line(counts, " (skipped: {})")
        raise UserError(
            f"{', '.join(files[:3])}: no text to train a tokenizer on{skipped}; give UTF-8 text, "
            "for .jsonl one JSON object per line"
        )
    text_bytes = sum(len(s.encode()) for s in sentences)
    log(f"training a tokenizer of {vocab_size} ids ({model_type}) on {text_bytes / 1e6:.1f} MB")
    settings = {"model_type": model_type, "character_coverage": character_coverage}
    model, got = _trained(sentences, vocab_size, settings, log)
    if got < vocab_size:
        log(f"the text supports {got} ids, not {vocab_size}: that is the vocabulary")
    config = {
        "format": 1,
        "type": "sentencepiece",
        **settings,
        "requested_vocab_size": vocab_size,
        "vocab_size": got,
        "text_bytes": text_bytes,
        "sha256": hashlib.sha256(model).hexdigest(),
    }
    tokenizer_lib.Tokenizer(model, config).save(output)
    return Training(vocab_size, got, text_bytes)


def _sentences(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        yield from tokenizer_lib.cut(line, _SENTENCE_CHARS)


def _trained(
    sentences: Sequence[str], vocab_size: int, settings: dict, log: Callable[[str], None]
) -> tuple[bytes, int]:
    """Trains with `vocab_size` ids, or as many as SentencePiece says that it can."""
    while True:
        try:
            return _train_once(sentences, vocab_size, settings), vocab_size
        except RuntimeError as error:
            if small := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
                sentences, said = _of_frequent_characters(sentences, vocab_size)
                log(f"{said}; vocab_size={small[1]} would have room for all that matter")
                continue
            limit = re.search(r"set it to a value <= (\d+)", str(error))
            if not limit or not _NUM_FIXED <= int(limit[1]) < vocab_size:
                raise
            vocab_size = int(limit[1])


def _of_frequent_characters(sentences: Sequence[str], vocab_size: int) -> tuple[list[str], str]:
    """The sentences cut at all but the most frequent characters, and a line that says so.

    No piece holds a character without an id of its own, so nothing else is lost.
    """
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(sentence)
    room = int(_CHARACTERS * (vocab_size - _NUM_FIXED))
    frequent = [character for character, _ in counts.most_common(room)]
    share = sum(counts[character] for character in frequent) / counts.total()
    rare = dict.fromkeys(map(ord, counts.keys() - set(frequent)), "\n")
    parts = [part for s in sentences for part in s.translate(rare).split("\n") if part]
    return parts, (
        f"{vocab_size} ids are too few for this text's {len(counts):,} characters: the most "
        f"frequent {room} ({share:.1%} of it) have ids of their own, others are written in bytes"
    )


def _train_once(sentences: Sequence[str], vocab_size: int, settings: dict) -> bytes:
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=vocab_size,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        byte_fallback=True,
        pad_id=tokenizer_lib.PAD_ID,
        eos_id=tokenizer_lib.EOS_ID,
        unk_id=tokenizer_lib.UNK_ID,
        bos_id=tokenizer_lib.BOS_ID,
        control_symbols=[tokenizer_lib.MASK_PIECE],
        max_sentence_length=4 * _SENTENCE_CHARS + 1,
        num_threads=_THREADS,
        minloglevel=3,  # what goes wrong comes back as an exception
        **settings,
    )
    is_unigram = settings["model_type"] == "unigram"
    return scores.rounded(model.getvalue()) if is_unigram else model.getvalue()
