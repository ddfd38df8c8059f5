"""The tokenizer of a published folder, where it is one that we can run, checked against its model.

Older folders have no tokenizer.json but the files it is made of; one is then built of those.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from lmjax import confine, paths
from lmjax.data import published_tokenizer
from lmjax.data.json_tokenizer import JsonTokenizer
from lmjax.data.published_tokenizer import FILES, MAIN_FILE, SPECIAL
from lmjax.data.tokenizer_folder import MAX_BYTES
from lmjax.errors import UserError, reason

_OR_WITHOUT = f"or take the tokenizer's files ({MAIN_FILE}, ...) away, to import the model alone"
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_GPT = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>")


def read(
    folder: str,
    config: Mapping[str, Any],
    ids: Mapping[str, int | None],
    num_rows: int,
    built_of: str | None,
) -> tuple[JsonTokenizer | None, str]:
    """The tokenizer of a folder, and how it is called; None, and why, where there is none.

    Args:
      folder: local, with config.json.
      config: its content.
      ids: special ids of the model by name, for those that the tokenizer's files do not name.
      num_rows: of the model's embedding.
      built_of: file that a tokenizer.json may be built of, "vocab.txt" or "merges.txt".

    Raises:
      UserError: a file is damaged or too large, or the tokenizer is that of another model.
    """
    try:
        published = _files(Path(folder), built_of)
        if MAIN_FILE not in published:
            return None, "without tokenizer"
        kind = published_tokenizer.kind(*published_tokenizer.read(published))
        if kind not in published_tokenizer.KINDS:
            return None, f"without its tokenizer, whose kind is not supported ({kind})"
        found = _loaded(folder, published)
        named = found.config["special"]
        _check(folder, config, found, num_rows)
        known = {name: ids.get(name) if named[name] is None else named[name] for name in SPECIAL}
        if known != named:
            found = JsonTokenizer(published, known)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UserError(
            f"{folder}: its tokenizer cannot be read ({reason(error)}); copy the folder again, "
            f"{_OR_WITHOUT}"
        ) from None
    return found, f"with its tokenizer, {kind} of {found.vocab_size:,} ids"


def _loaded(folder: str, published: Mapping[str, bytes]) -> JsonTokenizer:
    try:
        return JsonTokenizer(published)
    except UserError as error:  # what it cannot do safely
        raise UserError(f"{folder}/{error}; mend it, {_OR_WITHOUT}") from None


def _files(folder: Path, built_of: str | None) -> dict[str, bytes]:
    """Content by name, with a tokenizer.json where there is anything to build it of."""
    published = {}
    for name in FILES:
        if not os.path.lexists(folder / name):
            continue
        try:
            published[name] = paths.read_bytes(confine.inside(folder, name), MAX_BYTES)
        except UserError as error:  # which is of tokenizers and of links
            raise UserError(f"{error}, {_OR_WITHOUT}") from None
    if MAIN_FILE not in published and built_of in published:
        said = json.loads(published.get("tokenizer_config.json", b"{}"))
        build = _wordpiece if built_of == "vocab.txt" else _byte_level
        published[MAIN_FILE] = _built(build, published, said)
    return published


def _built(build: Callable[..., Tokenizer], *files: Any) -> bytes:
    """A tokenizer.json; the library raises bare exceptions where there was none from Python."""
    try:
        return build(*files).to_str().encode()
    except (ValueError, LookupError, TypeError, AttributeError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(str(error)) from None


def _wordpiece(published: Mapping[str, bytes], said: Mapping[str, Any]) -> Tokenizer:
    """BERT's tokenizer, of a file with a piece in each line."""
    lines = published["vocab.txt"].decode().removesuffix("\n").split("\n")
    vocab = {line.rstrip("\r"): number for number, line in enumerate(lines)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=said.get("tokenize_chinese_chars", True),
        strip_accents=said.get("strip_accents"),
        lowercase=said.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in _BERT if token in vocab])
    return tokenizer


def _byte_level(published: Mapping[str, bytes], said: Mapping[str, Any]) -> Tokenizer:
    """GPT-2's tokenizer, of pieces with their ids, and of merges, one in each line."""
    vocab = json.loads(published["vocab.json"])
    lines = published["merges.txt"].decode().splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    prefix = said.get("add_prefix_space", False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token in _GPT if token in vocab])
    return tokenizer


def _check(folder: str, config: Mapping[str, Any], found: JsonTokenizer, num_rows: int) -> None:
    """Raises UserError unless model and tokenizer go together."""
    if found.vocab_size > num_rows:
        raise UserError(
            f"{folder}: its tokenizer has {found.vocab_size} ids, the model {num_rows} rows "
            f"(vocab_size of config.json); take the tokenizer of this model, {_OR_WITHOUT}"
        )
    for name, token in found.config["special"].items():
        said = config.get(f"{name}_token_id")
        wanted = said if isinstance(said, list) else [said]
        if said is not None and token is not None and token not in wanted:
            raise UserError(
                f"{folder}: config.json says {name}_token_id={said}, its tokenizer's {name} token "
                f"{found.piece(token)} is {token}; mend one of them, {_OR_WITHOUT}"
            )
