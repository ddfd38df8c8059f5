"""The tokenizer's face: ids, round trips, long texts, training, faults."""

import hashlib
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from lmjax.data import files, tokenizer, tokenizer_training
from lmjax.errors import UserError

CORNERS = [
    "",
    " ",
    "plain text",
    "  two  spaces   and more ",
    "\ttabs\t\tand\nnewlines\n\n\n",
    "NUL \0 and \x01 and \x7f",
    "emoji 😀👩‍👩‍👧 and 東京 and Ωμέγα and e\u0301",
    "non\u00a0breaking\u3000ideographic\u200bzero",
    "<mask> </s> <s> <pad> <unk> <0x41>",
    "\U0010ffff\ufffd",
]


@pytest.mark.parametrize("text", CORNERS)
def test_round_trip(any_tokenizer, text):
    model = tokenizer.load(any_tokenizer)
    (ids,) = model.encode_batch([text])
    assert ids.dtype == np.int32
    assert model.decode(ids) == text
    assert model.bytes_per_id[ids].sum() == len(text.encode())


def test_special_ids_are_fixed_and_never_come_from_text(any_tokenizer):
    model = tokenizer.load(any_tokenizer)
    assert (model.pad_id, model.eos_id, model.unk_id, model.bos_id, model.mask_id) == (
        0,
        1,
        2,
        3,
        4,
    )
    assert [model.piece(i) for i in range(6)] == [
        "<pad>",
        "</s>",
        "<unk>",
        "<s>",
        "<mask>",
        "<0x00>",
    ]
    for text in CORNERS:
        assert (model.encode(text) > 4).all()
    assert (model.bytes_per_id[:5] == 0).all()
    assert (model.bytes_per_id[5:261] == 1).all()
    assert model.decode([3, 4, *model.encode("x"), 1, 0, 0]) == "x"
    with pytest.raises(ValueError, match="outside the vocabulary"):
        model.decode([model.vocab_size])


def test_long_texts_have_the_ids_of_the_whole(any_tokenizer, monkeypatch):
    model = tokenizer.load(any_tokenizer)
    bundled = Path(files.find_files("bundled:corpus_small")[0]).read_text("utf-8")
    text = bundled[:5000]
    whole = model._encoder.encode_as_numpy(text)
    for limit in (50, 200, 1000):
        monkeypatch.setattr(tokenizer, "MAX_PIECE_CHARS", limit)
        assert np.array_equal(model.encode(text), whole)
    parts = list(tokenizer.cut(text, 100))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= 100
    assert len(parts) > 50


def test_very_long_texts(any_tokenizer):
    model = tokenizer.load(any_tokenizer)
    bundled = Path(files.find_files("bundled:corpus_small")[0]).read_text("utf-8")
    text = bundled[: 12 * tokenizer.MAX_PIECE_CHARS]
    whole, ids = model._encoder.encode_as_numpy(text), model.encode(text)
    assert len(ids) == len(whole)
    # Unigram sums scores in float32: over a long text, near-ties fall either way.
    assert (ids != whole).mean() <= (1e-3 if model.config["model_type"] == "unigram" else 0)
    mixed = model.encode_batch(["short", text, "", "last"])
    assert [model.decode(ids) for ids in mixed] == ["short", text, "", "last"]


def test_a_text_without_spaces_is_cut_between_characters(any_tokenizer):
    model = tokenizer.load(any_tokenizer)
    text = "東京😀x" * 20_000
    assert model.decode(model.encode(text)) == text


def test_threads_change_nothing(any_tokenizer, texts):
    model = tokenizer.load(any_tokenizer)
    one, two = (model.encode_batch(texts, num_threads=n) for n in (1, 2))
    assert all(map(np.array_equal, one, two))


def test_pickle_and_save(any_tokenizer, tmp_path):
    model = tokenizer.load(any_tokenizer)
    model.save(tmp_path)
    for other in (pickle.loads(pickle.dumps(model)), tokenizer.load(tmp_path)):
        assert other.sha256 == model.sha256
        assert np.array_equal(other.encode("some text"), model.encode("some text"))
    content = (tmp_path / "tokenizer.model").read_bytes()
    assert model.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("fault", ["no folder", "no model", "truncated", "empty", "config", "type"])
def test_faults_of_the_folder(tokenizer_path, tmp_path, fault):
    tokenizer.load(tokenizer_path).save(tmp_path)
    model, config = tmp_path / "tokenizer.model", tmp_path / "tokenizer_config.json"
    if fault == "no model":
        model.unlink()
    elif fault in ("truncated", "empty"):
        model.write_bytes(model.read_bytes()[:5000] if fault == "truncated" else b"")
    elif fault == "config":
        config.write_text("{")
    elif fault == "type":
        config.write_text(config.read_text().replace("sentencepiece", "abacus"))
    with pytest.raises(UserError, match="tokenizer"):
        tokenizer.load(tmp_path / "nowhere" if fault == "no folder" else tmp_path)


def _train(tmp_path, text, name="out", **kwargs):
    source = tmp_path / "x.txt"
    source.write_text(text)
    settings = {"vocab_size": 300, "model_type": "unigram", **kwargs}
    return tokenizer_training.train([str(source)], tmp_path / name, **settings)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_the_largest_vocabulary_the_text_supports(tmp_path, model_type):
    lines = []
    text = "the quick brown fox jumps over the lazy dog\n" * 20
    result = _train(tmp_path, text, vocab_size=60_000, model_type=model_type, log=lines.append)
    assert 261 < result.vocab_size < 60_000
    assert tokenizer.load(tmp_path / "out").vocab_size == result.vocab_size
    assert any(f"{result.vocab_size} ids, not 60000" in line for line in lines)


def test_training_is_repeatable(tmp_path):
    text = "a rose is a rose is a rose, and so on and so forth\n" * 50
    for name in "ab":
        _train(tmp_path, text, name=name)
    for file in ("tokenizer.model", "tokenizer_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_more_characters_than_ids(tmp_path, model_type):
    rng = np.random.default_rng(0)
    lines = []
    characters = [chr(0x4E00 + i) for i in range(500)]
    often = 1 / np.arange(1, 501)
    text = "\n".join("".join(rng.choice(characters, 20, p=often / often.sum())) for _ in range(400))
    result = _train(tmp_path, text, model_type=model_type, vocab_size=400, log=lines.append)
    assert result.vocab_size == 400
    (line,) = (line for line in lines if "too few" in line)
    assert re.search(
        r"^400 ids .* most frequent 104 \(7\d\.\d% .* in bytes; vocab_size=7\d\d would", line
    )
    model = tokenizer.load(tmp_path / "out")
    ids = model.encode(text)
    assert model.unk_id not in ids
    assert model.decode(ids) == text
    assert len(model.encode(characters[0] + characters[499])) == 1 + 3


def test_training_faults(tmp_path):
    with pytest.raises(UserError, match="no text"):
        _train(tmp_path, " \n\n ")
    (tmp_path / "a_file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        _train(tmp_path, "text", name="a_file")


def test_an_unknown_tokenizer_has_only_ids(tmp_path):
    special = {"pad": 1, "bos": 0, "eos": 2, "unk": 3, "mask": None, "decoder_start": 2}
    tokenizer.IdsTokenizer(50, special).save(tmp_path)
    model = tokenizer.load(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer_config.json"]
    assert (model.vocab_size, model.special_ids) == (50, (0, 1, 2, 3))
    found = (model.pad_id, model.eos_id, model.unk_id, model.bos_id, model.mask_id)
    assert found == (1, 2, 3, 0, None)
    assert model.decoder_start_id == 2
    assert pickle.loads(pickle.dumps(model)).sha256 == model.sha256
    assert tokenizer.IdsTokenizer(51, special).sha256 != model.sha256
    for call in (lambda: model.encode("x"), lambda: model.encode_batch(["x"])):
        with pytest.raises(UserError, match=r"without its tokenizer.*; give token_ids, or source_"):
            call()
    with pytest.raises(UserError, match="without its tokenizer"):
        model.decode([5])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("special", {"pad": 50}),
        ("special", {"pad": "0"}),
        ("special", {"padding": 0}),
        ("special", [0]),
        ("vocab_size", "50"),
        ("vocab_size", None),
        ("format", 2),
    ],
)
def test_faults_of_an_ids_tokenizer(tmp_path, field, value):
    config = {"format": 1, "type": "ids", "vocab_size": 50, "special": {}}
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(config))
    assert tokenizer.load(tmp_path).special_ids == ()
    path.write_text(json.dumps(config | {field: value}))
    with pytest.raises(UserError, match="tokenizer"):
        tokenizer.load(tmp_path)
