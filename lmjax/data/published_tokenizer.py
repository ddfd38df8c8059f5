"""What the files of a published tokenizer say: its kind, its special tokens, a ready encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tokenizers

from lmjax.data import json_value
from lmjax.errors import reason

MAIN_FILE = "tokenizer.json"
FILES = (
    MAIN_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
)
WORDPIECE, BYTE_LEVEL = "WordPiece", "byte-level BPE"
BYTE_FALLBACK = "pieces with byte fallback"
KINDS = (WORDPIECE, BYTE_LEVEL, BYTE_FALLBACK)
SPECIAL = ("pad", "bos", "eos", "unk", "mask", "cls", "sep", "decoder_start")
_CONVENTIONAL = {
    "pad": ("[PAD]", "<pad>"),
    "bos": ("<s>", "<|begin_of_text|>"),
    "eos": ("</s>", "<|endoftext|>", "<|end_of_text|>"),
    "unk": ("[UNK]", "<unk>"),
    "mask": ("[MASK]", "<mask>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
}
SPACE = "▁"
_AS_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def read(published: Mapping[str, bytes]) -> tuple[dict[str, Any], tokenizers.Tokenizer]:
    """(content of the main file, the tokenizer that it describes).

    Args:
      published: content by name, names from `FILES`, `MAIN_FILE` among them.

    Raises:
      ValueError: a damaged file.
    """
    return _parsed(published, MAIN_FILE), _encoder(published[MAIN_FILE])


def kind(document: Mapping[str, Any], encoder: tokenizers.Tokenizer) -> str:
    """What a tokenizer is: one of `KINDS`, or the name of another one."""
    name = type(encoder.model).__name__
    if name == "BPE" and _is_byte_level(document.get("pre_tokenizer")):
        return BYTE_LEVEL
    falls_back = name in ("BPE", "Unigram") and document["model"].get("byte_fallback") is True
    return BYTE_FALLBACK if falls_back and document.get("normalizer") == _AS_SPACE else name


def _is_byte_level(step: Any) -> bool:
    if not isinstance(step, dict):
        return False
    steps = step.get("pretokenizers", [])
    return step.get("type") == "ByteLevel" or any(map(_is_byte_level, steps))


def _encoder(content: bytes | str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(
            content if isinstance(content, str) else content.decode()
        )
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise ValueError(f"{MAIN_FILE}: {error}") from None


def prepared(
    encoder: tokenizers.Tokenizer, kind: str, document: Mapping[str, Any], named: set[int | None]
) -> tokenizers.Tokenizer:
    """The same tokenizer, without what is for other uses.

    Args:
      encoder, document: as `read` gives them.
      kind: one of `KINDS`.
      named: ids that stay text where it is spelt out.
    """
    changed = [t for t in document.get("added_tokens", []) if t["id"] in named and not t["special"]]
    if changed:  # only what is marked as special stays text where it is spelt out
        for token in changed:
            token["special"] = True
        encoder = _encoder(json.dumps(document))
    encoder.no_truncation()
    encoder.no_padding()
    encoder.encode_special_tokens = True
    if isinstance(encoder.model, tokenizers.models.BPE):
        encoder.model.dropout = None
    if kind == BYTE_LEVEL:
        encoder.decoder = tokenizers.decoders.ByteLevel()
    elif kind == BYTE_FALLBACK:
        replace = tokenizers.decoders.Replace(SPACE, " ")
        fallback, fuse = tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()
        encoder.decoder = tokenizers.decoders.Sequence([replace, fallback, fuse])
    elif encoder.decoder is None:
        prefix = encoder.model.continuing_subword_prefix
        encoder.decoder = tokenizers.decoders.WordPiece(prefix=prefix)
    return encoder


def special_ids(
    published: Mapping[str, bytes], encoder: tokenizers.Tokenizer
) -> dict[str, int | None]:
    """Special ids by name: as the files say, else those of the added tokens with usual names."""
    said: dict[str, str | None] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        content = _parsed(published, file) if file in published else {}
        keys = {name: f"{name}_token" for name in _CONVENTIONAL}
        said |= {name: _content(content[key], key) for name, key in keys.items() if key in content}
    added = {token.content for token in encoder.get_added_tokens_decoder().values()}
    for name, usual in _CONVENTIONAL.items():
        if name not in said:
            said[name] = next((token for token in usual if token in added), None)
    return {k: None if token is None else encoder.token_to_id(token) for k, token in said.items()}


def _content(token: Any, key: str) -> str | None:
    token = token.get("content") if isinstance(token, dict) else token
    if token is not None and not isinstance(token, str):
        raise ValueError(f"{key} is {token!r}, not a token")
    return token


def _parsed(published: Mapping[str, bytes], file: str) -> dict[str, Any]:
    try:
        content = json_value.parse(published[file])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: {reason(error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: no JSON object")
    return content
