"""tokenizer.json makes lmjax's tokenizer: ids, special tokens, frames; another one is refused."""

import json
import random
from pathlib import Path

import pytest
import tokenizers

from lmjax.data import files as files_lib
from lmjax.data import prepare
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.tokenizer import IdsTokenizer
from lmjax.errors import UserError
from lmjax.export import tokenizer_check, tokenizer_files
from lmjax.hf import tokenizer_json
from lmjax.hf.tokenizer_json import Special

ALPHABETS = ["ab", "aab ", "-=.", "0123456789", "the ", "<0x4F1>", "▁ a\n\t", "<mask></s>"]
PLANES = [(0, 0x24F), (0x370, 0x2FFF), (0x3000, 0xD7FF), (0xE000, 0x10FFFF)]


@pytest.fixture(scope="module")
def lines():
    path = files_lib.find_files("bundled:corpus_small")[0]
    texts = [json.loads(line)["text"] for line in Path(path).read_text("utf-8").splitlines()]
    return [line for text in texts for line in text.split("\n")][::6]


def random_texts(rng, count):
    for number in range(count):
        size = rng.randint(1, 100)
        if number % 2:
            yield "".join(rng.choices(rng.choice(ALPHABETS), k=size))
        else:
            yield "".join(chr(rng.randint(*rng.choice(PLANES))) for _ in range(size))


def loaded(contents):
    return tokenizers.Tokenizer.from_str(contents["tokenizer.json"].decode())


def test_ids_of_text(any_tokenizer, make_config, lines):
    contents = tokenizer_files.files(make_config("bert", any_tokenizer), any_tokenizer)
    texts = [*lines, *random_texts(random.Random(0), 1000)]
    assert tokenizer_check.check(contents, any_tokenizer, texts) > len(texts)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_very_long_words(trained, make_config, kind):
    model = trained(kind, 2000)
    theirs = loaded(tokenizer_files.files(make_config("gpt2", model), model))
    for word in ("x" * 50_000, "above all" * 5_000, "😀" * 50_000, "東京" * 25_000):
        assert theirs.encode(word).ids == model._encoder.encode(word)


def test_frames(trained, make_config):
    model = trained("bpe", 600)
    one, two = (model.encode(text).tolist() for text in ("some text", " more"))
    single, pair = {}, {}
    for family in ("bert", "t5", "gpt2"):
        theirs = loaded(tokenizer_files.files(make_config(family, model), model))
        single[family] = theirs.encode("some text").ids
        both = theirs.encode("some text", " more")
        pair[family] = both.ids
        assert set(both.type_ids) == {0}
    assert single == {"bert": [3, *one, 1], "t5": [*one, 1], "gpt2": one}
    assert pair == {"bert": [3, *one, 1, *two, 1], "t5": [*one, 1, *two, 1], "gpt2": one + two}


def described(config, model):
    contents = tokenizer_files.files(config, model)
    return json.loads(contents["tokenizer_config.json"]), loaded(contents)


def test_names(trained, make_config):
    model = trained("unigram", 600)
    config, theirs = described(make_config("bert", model), model)
    named = {k: v for k, v in config.items() if k.endswith("_token")}
    assert named == {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    }
    assert [theirs.token_to_id(t) for t in named.values()] == [0, 2, 3, 1, 3, 1, 4]
    assert (config["model_max_length"], config["padding_side"]) == (512, "right")
    assert config["split_special_tokens"] is config["clean_up_tokenization_spaces"] is False
    config, theirs = described(make_config("gpt2", model), model)
    assert (config["bos_token"], config["eos_token"]) == ("</s>", "</s>")
    assert (config["model_max_length"], config["padding_side"]) == (1024, "left")
    assert theirs.encode("<mask> <s>").ids == model.encode("<mask> <s>").tolist()
    config, _ = described(make_config("t5", model), model)
    assert config["model_max_length"] == 64
    assert "mask_token" not in config


@pytest.mark.parametrize("rows", [728, 1000])
def test_sentinels_are_the_last_rows(trained, make_config, rows):
    model = trained("bpe", 600)
    config, theirs = described(make_config("t5", model, vocab_size=rows), model)
    ids = model.ids(rows)
    assert config["additional_special_tokens"] == [f"<extra_id_{k}>" for k in range(128)]
    for number, name in enumerate(config["additional_special_tokens"]):
        assert theirs.token_to_id(name) == ids.sentinel(number)
    assert theirs.get_vocab_size() == rows
    expected = [*model.encode("Thank you"), ids.sentinel(0), *model.encode(" me"), 1]
    assert theirs.encode("Thank you <extra_id_0> me").ids == expected
    answer = [ids.sentinel(0), *model.encode(" for"), ids.sentinel(1), 1]
    assert theirs.decode(answer, skip_special_tokens=False) == "<extra_id_0> for<extra_id_1></s>"
    assert theirs.decode(answer) == " for"


def test_text_that_spells_a_special_token(any_tokenizer, make_config):
    theirs = loaded(tokenizer_files.files(make_config("bert", any_tokenizer), any_tokenizer))
    text = "The <mask> sat</s>"
    spelled = [*any_tokenizer.encode("The"), 4, *any_tokenizer.encode(" sat"), 1]
    assert theirs.encode(text).ids == [3, *spelled, 1]
    theirs.encode_special_tokens = True
    assert theirs.encode(text).ids == [3, *any_tokenizer.encode(text), 1]


def swapped(document):
    """Two pieces change places."""
    vocab = document["model"]["vocab"]
    if isinstance(vocab, list):
        vocab[-1], vocab[300] = vocab[300], vocab[-1]
    else:
        first, last = (piece for piece, i in vocab.items() if i in (300, len(vocab) - 1))
        vocab[first], vocab[last] = vocab[last], vocab[first]


def without_splits(document):
    document["pre_tokenizer"] = None
    document["normalizer"] = None


def other_mask(document):
    document["added_tokens"][-1]["content"] = "[MASK]"


def moved(document):
    document["added_tokens"].append(document["added_tokens"][-1] | {"id": 999, "content": "<x>"})


def lossy(document):
    document["decoder"] = None


@pytest.mark.parametrize("damage", [swapped, without_splits, other_mask, moved, lossy])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_another_tokenizer_is_refused(trained, make_config, lines, damage, kind):
    model, lines = trained(kind, 600), lines[:100]
    contents = tokenizer_files.files(make_config("bert", model), model)
    document = json.loads(contents["tokenizer.json"])
    damage(document)
    contents["tokenizer.json"] = json.dumps(document).encode()
    with pytest.raises(UserError, match=r"would not be this tokenizer: .* or export with") as error:
        tokenizer_check.check(contents, model, lines)
    assert len(str(error.value)) < 600
    contents["tokenizer.json"] = b"{}"
    with pytest.raises(UserError, match="refuses it"):
        tokenizer_check.check(contents, model, lines)


def test_what_cannot_be_said():
    with pytest.raises(UserError, match="'word'"):
        tokenizer_json.from_sentencepiece([("<unk>", None)], "word", 0, [])
    with pytest.raises(UserError, match=r"ids \[3\]... do not follow on 1 pieces"):
        tokenizer_json.from_sentencepiece([("<unk>", None)], "bpe", 0, [Special("<x>", 3)])


def test_what_is_sampled(trained, make_config, tmp_path):
    model = trained("bpe", 600)
    config = make_config("gpt2", model)

    def sampled(path):
        data = config.data.model_copy(update={"path": str(path)})
        return tokenizer_check.sample(config.model_copy(update={"data": data}), model)

    lines = [f"line {number} of\tthis" for number in range(50)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    assert sampled(tmp_path) == (lines, str(tmp_path))
    (tmp_path / "tokenizer").mkdir()
    model.save(tmp_path / "tokenizer")
    store = str(tmp_path / "store")
    prepare.prepare([str(tmp_path / "text.txt")], str(tmp_path / "tokenizer"), store, num_workers=1)
    texts, source = sampled(store)
    assert source == store
    assert "".join(texts) == "\n".join(lines)
    for path in ("gs://bucket/text", tmp_path / "gone"):
        texts, source = sampled(path)
        assert (len(texts) > 1000, source) == (True, "bundled:corpus_small")


def test_folders(trained, make_config, tmp_path):
    model = trained("unigram", 2000)
    config = make_config("t5", model)
    said = tokenizer_files.write(str(tmp_path), config, model)
    assert said.startswith("tokenizer.json gives the same ids for")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == tokenizer_files.files(
        config, model
    )
    ids = IdsTokenizer(50, {"pad": 0})
    assert tokenizer_files.files(config, ids) == {}
    assert "takes ids" in tokenizer_files.write(str(tmp_path), config, ids)

    came = tokenizer_lib.Tokenizer(*model.__reduce__()[1])
    came.published_files = {"tokenizer.json": b"as it came"}
    assert "as it was imported" in tokenizer_files.write(str(tmp_path), config, came)
    assert (tmp_path / "tokenizer.json").read_bytes() == b"as it came"


def test_a_refusal_writes_nothing(trained, make_config, tmp_path, monkeypatch):
    model = trained("bpe", 600)
    contents = tokenizer_files.files(make_config("gpt2", model), model)
    document = json.loads(contents["tokenizer.json"])
    swapped(document)
    wrong = json.dumps(document).encode()
    monkeypatch.setattr(tokenizer_json, "from_sentencepiece", lambda *args, **how: wrong)
    with pytest.raises(UserError, match="would not be this tokenizer"):
        tokenizer_files.write(str(tmp_path), make_config("gpt2", model), model)
    assert not list(tmp_path.iterdir())
