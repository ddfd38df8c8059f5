"""Tokenizers: a damaged model or config is refused, or what is left of it encodes and decodes."""

import hashlib
import json

import pytest
from fuzzing import damaged, damaged_json, fuzz, outcome, write_damaged
from hypothesis import given
from hypothesis import strategies as st

from lmjax.data import tokenizer as tokenizer_lib

TEXT = "the whale, the whale: café 東京 \t\n <mask> <s> [MASK] <|endoftext|> \u2581 \U0001f600"


def used(tokenizer):
    """All that anything asks of a tokenizer."""
    size = tokenizer.vocab_size
    ids = tokenizer.encode(TEXT)
    assert ((ids >= 0) & (ids < size)).all()
    decoded = tokenizer.decode(ids)
    spans = tokenizer.encode_spans(TEXT)[1]
    assert ((spans >= 0) & (spans <= len(TEXT))).all()
    assert len(tokenizer.bytes_per_id) == len(tokenizer.surfaces) == size
    assert all(isinstance(tokenizer.piece(i), str) for i in range(size))
    tokenizer.ids(size)
    return decoded


def test_bytes_of_a_folder(tokenizer_path, tmp_path):
    """By mistake: the SHA-256 tells."""
    whole = {path.name: path.read_bytes() for path in tokenizer_path.iterdir()}
    expected = used(tokenizer_lib.load(tokenizer_path))

    @fuzz
    @given(data=st.data())
    def property(data):
        write_damaged(data, whole, tmp_path)
        found = outcome(lambda: used(tokenizer_lib.load(tmp_path)))
        assert found in (None, expected)

    property()


def test_a_model_as_if_it_had_to_be_so(tokenizer_path, tmp_path):
    whole = (tokenizer_path / "tokenizer.model").read_bytes()
    config = json.loads((tokenizer_path / "tokenizer_config.json").read_text())

    @fuzz
    @given(model=damaged(whole))
    def property(model):
        (tmp_path / "tokenizer.model").write_bytes(model)
        said = config | {"sha256": hashlib.sha256(model).hexdigest()}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
        outcome(lambda: used(tokenizer_lib.load(tmp_path)))

    property()


@pytest.mark.parametrize("kind", ["sentencepiece", "ids", "tokenizer.json"])
def test_fields_of_a_config(tokenizer_path, tmp_path, kind):
    config = json.loads((tokenizer_path / "tokenizer_config.json").read_text())
    model = (tokenizer_path / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(model)
    if kind == "ids":
        config = tokenizer_lib.IdsTokenizer(40, {"pad": 0, "eos": 1, "bos": None}).config
    elif kind == "tokenizer.json":
        config |= {"type": kind, "special": {"eos": 3}, "files": {"tokenizer.json": "0" * 64}}

    @fuzz
    @given(said=damaged_json(config))
    def property(said):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
        found = outcome(lambda: tokenizer_lib.load(tmp_path))
        outcome(lambda: tokenizer_lib.file_names(tmp_path))
        assert found is None or found.vocab_size > 0

    property()
