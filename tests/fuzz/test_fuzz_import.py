"""Folders of others: a damaged config, header, index or tokenizer is one line, or a whole model."""

import json

import numpy as np
import published
import published_tokenizers
import pytest
import safetensors.numpy
from fuzzing import damaged, damaged_json, fuzz, outcome, write_damaged
from hypothesis import given
from hypothesis import strategies as st

from lmjax.export import from_hf, imported_tokenizer

MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"
TEXT = (
    "The whale, the white whale: caf\u00e9 \u6771\u4eac \t\n [MASK] <|endoftext|> \u2581 \U0001f600"
)


def checked(folder):
    """A folder that is taken is a model whose every tensor can be read."""
    read = from_hf.check(str(folder))
    from_hf.config_of(read, {})
    for entry in read.entries:
        assert read(entry.name).shape == entry.shape
    return from_hf.summary(read)


@pytest.mark.parametrize("model_type", sorted(published.MODELS))
def test_fields_of_a_config(tmp_path, model_type):
    config, _ = published.make(tmp_path, model_type)
    assert checked(tmp_path)

    @fuzz
    @given(changed=damaged_json(config))
    def property(changed):
        published.rewrite(tmp_path, changed)
        outcome(lambda: checked(tmp_path))

    property()


def test_bytes_of_files(tmp_path):
    published.make(tmp_path, "gpt2")
    whole = {name: (tmp_path / name).read_bytes() for name in ("config.json", MODEL)}

    @fuzz
    @given(data=st.data())
    def property(data):
        write_damaged(data, whole, tmp_path)
        outcome(lambda: checked(tmp_path))

    property()


def test_headers_of_tensors(tmp_path):
    """The header of safetensors alone, and its length."""
    published.make(tmp_path, "llama")
    whole = (tmp_path / MODEL).read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]

    @fuzz
    @given(changed=damaged_json(header), lie=st.sampled_from([0, 0, 0, -1, 1, 2**40, 2**63]))
    def property(changed, lie):
        text = json.dumps(changed).encode()
        length = ((len(text) + lie) % 2**64).to_bytes(8, "little")
        (tmp_path / MODEL).write_bytes(length + text + data)
        outcome(lambda: checked(tmp_path))

    property()


def test_fields_of_an_index(tmp_path):
    _, tensors = published.make(tmp_path, "bert")
    (tmp_path / MODEL).unlink()
    names, weight_map = sorted(tensors), {}
    for number in range(2):
        file = f"model-{number}.safetensors"
        part = {name: tensors[name] for name in names[number::2]}
        safetensors.numpy.save_file(part, tmp_path / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (tmp_path / INDEX).write_text(json.dumps(index))
    expected = checked(tmp_path)

    @fuzz
    @given(changed=damaged_json(index))
    def property(changed):
        (tmp_path / INDEX).write_text(json.dumps(changed))
        assert outcome(lambda: checked(tmp_path)) in (None, expected)

    property()


KINDS = {
    "wordpiece": (published_tokenizers.wordpiece, "vocab.txt"),
    "byte_level": (published_tokenizers.byte_level, "merges.txt"),
    "pieces": (published_tokenizers.pieces, None),
}


@pytest.fixture(scope="module", params=KINDS)
def published_tokenizer(request, tmp_path_factory):
    """Files of a small tokenizer by name, and what one would be built of."""
    make, built_of = KINDS[request.param]
    folder = tmp_path_factory.mktemp("published")
    return published_tokenizers.files_of(make(folder)), built_of


def taken(folder, built_of):
    """The tokenizer of a folder as an import takes it; it encodes and decodes."""
    tokenizer, said = imported_tokenizer.read(str(folder), {}, {}, 10**6, built_of)
    if tokenizer is not None:
        ids = tokenizer.encode(TEXT)
        assert ((ids >= 0) & (ids < tokenizer.vocab_size)).all()
        tokenizer.decode(ids)
        tokenizer.encode_spans(TEXT)
        assert len(tokenizer.bytes_per_id) == tokenizer.vocab_size
    return said


@pytest.mark.parametrize("what", ["bytes", "fields"])
def test_files_of_a_tokenizer(tmp_path, published_tokenizer, what):
    whole, built_of = published_tokenizer
    fields = {name: json.loads(content) for name, content in whole.items()}

    @fuzz
    @given(data=st.data(), name=st.sampled_from(sorted(whole)))
    def property(data, name):
        for other, content in whole.items():
            (tmp_path / other).write_bytes(content)
        if what == "bytes":
            changed = data.draw(damaged(whole[name]))
        else:
            changed = json.dumps(data.draw(damaged_json(fields[name]))).encode()
        (tmp_path / name).write_bytes(changed)
        outcome(lambda: taken(tmp_path, built_of))

    property()


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_files_that_a_tokenizer_is_built_of(tmp_path, model_type):
    names = {"bert": ["vocab.txt"], "gpt2": ["vocab.json", "merges.txt"]}[model_type]
    if model_type == "bert":
        pieces = [*published_tokenizers.BERT_TOKENS, *["the", "whale", "##s", "a", "e"]]
        whole = {"vocab.txt": "\n".join(pieces).encode()}
    else:
        pieces = [published_tokenizers.END, *"\u0120thewal", "th", "the"]
        vocab = {piece: number for number, piece in enumerate(pieces)}
        whole = {"vocab.json": json.dumps(vocab).encode(), "merges.txt": b"t h\nth e\n"}

    @fuzz
    @given(data=st.data(), name=st.sampled_from(names))
    def property(data, name):
        for other, content in whole.items():
            (tmp_path / other).write_bytes(content)
        (tmp_path / name).write_bytes(data.draw(damaged(whole[name])))
        outcome(lambda: taken(tmp_path, names[-1]))

    property()


def test_random_bytes_are_no_model(tmp_path):
    published.make(tmp_path, "gpt2")
    rng = np.random.default_rng(0)
    for name in ("config.json", MODEL):
        whole = (tmp_path / name).read_bytes()
        for size in (0, 1, 8, 100, 10_000):
            (tmp_path / name).write_bytes(rng.bytes(size))
            assert outcome(lambda: checked(tmp_path)) is None
        (tmp_path / name).write_bytes(whole)
