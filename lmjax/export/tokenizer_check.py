"""Whether the files of a tokenizer make the same tokenizer, by ids of text.

The `tokenizers` library reads tokenizer.json as transformers does, which is not needed here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tokenizers

from lmjax import paths
from lmjax.config import Config
from lmjax.data import files as files_lib
from lmjax.data import sample as sample_lib
from lmjax.data import store as store_lib
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.store import Store
from lmjax.data.tokenizer import Tokenizer
from lmjax.errors import UserError

MAIN = "tokenizer.json"
BUNDLED = "bundled:corpus_small"
_MAX_TEXTS, _MAX_BYTES = 4000, 500_000
_WINDOW = 512  # tokens

CORNERS = (
    "",
    " ",
    "   ",
    "a",
    " a ",
    "  two  spaces   and more    ",
    "\t",
    "\ttabs\t\tand \t spaces",
    "\n",
    "\r\n\n\nnew\r\nlines \n and\n spaces\n",
    "\0 \x01\x02 \x1b[0m \x7f \x85 \xa0 \u2028 \u2029 \ufeff",
    "\u2581",
    "\u2581\u2581 a\u2581b \u2581c",
    "non\u00a0breaking\u3000ideographic\u200bzero\u200dwidth\u00adsoft",
    "\u00e9 e\u0301 \ufb01 \u212b \u1e9b\u0323 \u0130 \u01c4 \u00df \u1100\u1161\u11a8 \uac01",
    "😀👩‍👩‍👧👩🏽‍🚀🏳️‍🌈🇫🇷 ❤️ 1️⃣",
    "東京は日本の首都です。漢字、ひらがな、カタカナ。",
    "中文没有空格，也没有大写。",
    "العربية مِنْ اليمين إلى اليسار ﷺ",
    "हिन्दी में संयुक्त अक्षर क्षत्रिय ไทยไม่มีช่องว่าง 한국어",
    "\U0010ffff \ufffd \ufdd0 \ue000 \U00020000 \U000e0041",
    "a" * 300 + " " * 300 + "-" * 301 + "=" * 77 + "." * 50 + "ab" * 60 + "aab" * 41,
    "0000000 1000000 12345678901234567890 3.14159",
    "<|endoftext|> [MASK] [CLS] [SEP] [UNK] <0x41><0x0A> <0xe2> <0xZZ <0x4 0x41>",
    "".join(f"<0x{byte:02X}>" for byte in range(256)),
)


def check(files: Mapping[str, bytes], tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Compares ids and what they are decoded to, over texts, corners and spelled special tokens.

    Args:
      files: content by name.
      tokenizer: the one that they have to be.
      texts: some of what it is used for.

    Returns:
      How many texts were compared.

    Raises:
      UserError: at the first difference; shows text and ids.
    """
    theirs = _loaded(files)
    named = {i: token.content for i, token in theirs.get_added_tokens_decoder().items()}
    declared = {t["content"]: t["id"] for t in json.loads(files[MAIN])["added_tokens"]}
    spelled = [*named.values(), "<s>", "<mask>"]
    spelled += [f"a{name} b {name}{name}\n{name}c" for name in spelled] + ["".join(spelled)]
    texts = [part for text in (*CORNERS, *spelled, *texts) for part in _whole(text)]
    theirs.encode_special_tokens = True
    found = [e.ids for e in theirs.encode_batch(texts, add_special_tokens=False)]
    expected = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    for text, mine, other in zip(texts, expected, found, strict=True):
        _same(text, mine, other)
    decoded = theirs.decode_batch(found, skip_special_tokens=False)
    for text, ids, back in zip(texts, expected, decoded, strict=True):
        if back != (again := tokenizer.decode(ids)):
            raise _differ(text, f"is decoded to {back[:60]!r}, not to {again[:60]!r}")
    theirs.encode_special_tokens = False
    for token, name in named.items():
        if token != declared.get(name):
            raise _differ(name, f"is id {token}, where it says {declared.get(name)}")
        if token < tokenizer.vocab_size and tokenizer.piece(token) != name:
            raise _differ(name, f"is id {token}, whose piece is {tokenizer.piece(token)!r}")
        around = [*tokenizer.encode("a").tolist(), token, *tokenizer.encode("b").tolist()]
        _same(f"a{name}b", around, theirs.encode(f"a{name}b", add_special_tokens=False).ids)
    return len(texts)


def sample(config: Config, tokenizer: Tokenizer) -> tuple[list[str], str]:
    """Texts of the run's own data where they are at hand, else of the bundled corpus.

    Returns:
      The texts, and the name of the place that they come from.
    """
    data, taken, known = config.data, [], []
    for path in data.paths:
        if paths.is_remote(path):
            continue
        try:
            if store_lib.is_store(path):
                texts = _decoded(Store.open(path, "train"), tokenizer)
            else:
                texts = _lines(path, data.text_key, data.text_split)
            taken += _taken(texts, len(data.paths))
        except UserError:  # moved or changed since; any text will do
            continue
        known.append(path)
    if known:
        return taken, ", ".join(known)
    return _taken(_lines(BUNDLED, "text", "file")), BUNDLED


def _loaded(files: Mapping[str, bytes]) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(files[MAIN].decode())
    except Exception as error:  # what the library raises has no narrower class
        raise UserError(f"tokenizer.json: the tokenizers library refuses it ({error})") from error


def _lines(path: str, text_key: str, text_split: str) -> Iterator[str]:
    found = sample_lib.sample_texts(
        files_lib.find_files(path), text_key=text_key, text_split=text_split, num_bytes=_MAX_BYTES
    )
    return itertools.chain.from_iterable(text.split("\n") for text in found)


def _decoded(store: Store, tokenizer: Tokenizer) -> Iterator[str]:
    """Text of windows that are spread over a store."""
    count = -(-store.num_tokens // _WINDOW)
    spread = np.linspace(0, count, min(count, _MAX_TEXTS), endpoint=False).astype(np.int64)
    for window in store.read(spread * _WINDOW, _WINDOW):
        yield tokenizer.decode(window)


def _taken(texts: Iterator[str], parts: int = 1) -> list[str]:
    """As many as are looked at, or one of so many equal parts of them."""
    taken, left = [], _MAX_BYTES // parts
    for text in texts:
        taken.append(text)
        left -= len(text.encode())
        if left <= 0 or len(taken) >= _MAX_TEXTS // parts:
            break
    return taken


def _whole(text: str) -> Iterator[str]:
    """The parts of a text that lmjax encodes at once."""
    return tokenizer_lib.cut(text, tokenizer_lib.MAX_PIECE_CHARS) if text else iter([text])


def _same(text: str, mine: Sequence[int], other: Sequence[int]) -> None:
    if list(mine) != list(other):
        at = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), 0)
        start = max(0, at - 2)
        raise _differ(
            text,
            f"is {list(other)[start : at + 6]} in tokenizer.json, {list(mine)[start : at + 6]} in "
            f"lmjax, from id {start} on",
        )


def _differ(text: str, how: str) -> UserError:
    return UserError(
        f"tokenizer.json would not be this tokenizer: {text[:60]!r} {how}; train a tokenizer anew "
        "(older unigram models have scores that are not rounded), or export with --notokenizer"
    )
