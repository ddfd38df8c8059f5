"""Folders with a tokenizer: it comes along where it is the model's own, else one line says why."""

import json
import shutil

import published
import published_tokenizers as made
import pytest
from tokenizers import Tokenizer

from lmjax.data import tokenizer
from lmjax.data.tokenizer import IdsTokenizer
from lmjax.errors import UserError
from lmjax.export import from_hf, imported_tokenizer, to_hf
from lmjax.train import trained

ROWS = 640
IDS = {"bert": {"pad": 0}, "gpt2": {"bos": 0, "eos": 0}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    for model_type, ids in IDS.items():
        published.make(root / model_type, model_type, ids=ids, vocab_size=ROWS)
    made.wordpiece(root / "bert")
    made.byte_level(root / "gpt2")
    return root


@pytest.fixture
def copied(folders, tmp_path):
    """model_type -> a folder of the test's own."""

    def get(model_type):
        return shutil.copytree(folders / model_type, tmp_path / model_type)

    return get


def refused(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        from_hf.check(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def with_config(folder, **more):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | more))


@pytest.mark.parametrize("model_type", IDS)
def test_it_comes_along(model_type, folders, tmp_path):
    read = published.import_folder(folders / model_type, tmp_path / "run")
    model = tokenizer.load(tmp_path / "run" / "tokenizer")
    assert (model.vocab_size, model.sha256) == (600, read.tokenizer.sha256)
    names = {"tokenizer.json", "tokenizer_config.json"}
    assert model.published_files.keys() == names
    for name, content in model.published_files.items():
        assert content == (folders / model_type / name).read_bytes()
    kind = {"bert": "WordPiece", "gpt2": "byte-level BPE"}[model_type]
    assert from_hf.summary(read).endswith(f"; with its tokenizer, {kind} of 600 ids")
    exported = to_hf.describe(str(tmp_path / "run"), "float32")
    config = json.loads((folders / model_type / "config.json").read_text())
    assert {k: v for k, v in exported.hf_config.items() if k in config} == config
    loaded = trained.special_ids(exported.config, model)
    assert {k: loaded[k] for k in IDS[model_type]} == IDS[model_type]


def test_a_model_without_one(folders, copied):
    folder = copied("gpt2")
    (folder / "tokenizer.json").unlink()
    read = from_hf.check(str(folder))
    assert read.tokenizer is None
    assert from_hf.summary(read).endswith("; without tokenizer: it takes ids and no text")


def test_a_kind_that_is_not_supported(copied, tmp_path):
    folder = copied("gpt2")
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}
    made.rewrite(folder, lambda content: content.update(model=unigram, added_tokens=[]))
    read = published.import_folder(folder, tmp_path / "run")
    said = "; without its tokenizer, whose kind is not supported (Unigram): it takes ids and no"
    assert said in from_hf.summary(read)
    assert isinstance(tokenizer.load(tmp_path / "run" / "tokenizer"), IdsTokenizer)


def test_a_decoder_start_is_the_configs(tmp_path):
    ids = {"pad": 0, "bos": 0, "eos": 0, "decoder_start": 0}
    published.make(tmp_path / "bart", "bart", ids=ids, vocab_size=ROWS)
    made.byte_level(tmp_path / "bart")
    read = from_hf.check(str(tmp_path / "bart"))
    assert read.tokenizer.decoder_start_id == 0
    assert read.tokenizer.config["special"]["pad"] == 0


def test_it_is_that_of_the_model(copied, tmp_path):
    folder = copied("gpt2")
    with_config(folder, eos_token_id=5)
    refused(folder, r"eos_token_id=5, its tokenizer's eos token <\|endoftext\|> is 0; mend one")
    with_config(folder, eos_token_id=[5, 0])
    assert from_hf.check(str(folder)).tokenizer.eos_id == 0
    published.make(tmp_path / "small", "gpt2", ids=IDS["gpt2"], vocab_size=599)
    made.byte_level(tmp_path / "small")
    refused(tmp_path / "small", "its tokenizer has 600 ids, the model 599 rows .* or take the")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"model": 1}'])
def test_damaged_files(content, copied):
    folder = copied("bert")
    whole = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(content)
    refused(folder, r"its tokenizer cannot be read \(tokenizer.json: .*\); copy the folder again")
    (folder / "tokenizer.json").write_bytes(whole)
    if content != b"{}" and not content.startswith(b'{"'):
        (folder / "tokenizer_config.json").write_bytes(content)
        refused(folder, r"its tokenizer cannot be read \(tokenizer_config.json: ")


def test_values_of_the_wrong_kind(copied):
    folder = copied("bert")
    config = json.loads((folder / "config.json").read_text())
    whole = json.loads((folder / "tokenizer.json").read_text())
    read = lambda: imported_tokenizer.read(str(folder), config, IDS["bert"], ROWS, None)
    lines = []
    for name in whole:
        for value in (None, 5, "x", [], {}, [{}], {"type": "ByteLevel"}):
            (folder / "tokenizer.json").write_text(json.dumps(whole | {name: value}))
            try:
                read()
            except UserError as error:
                lines.append(str(error))
    assert len(lines) > 20
    assert not [line for line in lines if "\n" in line or "tokenizer" not in line]
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    for value in (5, [], {"content": 5}):
        (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": value}))
        refused(folder, "mask_token is .*, not a token")
    (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": {}}))
    assert read()[0].mask_id is None


def test_text_must_not_become_special(copied):
    folder = copied("bert")
    words = {"type": "WhitespaceSplit"}
    change = {"pre_tokenizer": words, "added_tokens": [], "normalizer": None}
    made.rewrite(folder, lambda content: content.update(change))
    refused(folder, r"spells \[PAD\] would become the pad id, .*; mend it, or take")


def test_a_size_beyond_reason(copied, monkeypatch):
    folder = copied("bert")
    monkeypatch.setattr(imported_tokenizer, "MAX_BYTES", 1000)
    refused(folder, r"tokenizer.json: [\d,]+ bytes are more than such a file has \(at most 1,000\)")


@pytest.mark.parametrize("lower", [True, False])
def test_built_of_a_vocab_txt(lower, copied, tmp_path):
    folder = copied("bert")
    made.wordpiece(folder, lowercase=lower)
    whole = from_hf.check(str(folder)).tokenizer
    content = json.loads((folder / "tokenizer.json").read_text())
    pieces = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    read = published.import_folder(folder, tmp_path / "run").tokenizer
    assert read.config["special"] == whole.config["special"]
    assert (read.mask_id, read.eos_id) == (4, 3)
    for text in made.lines(50):
        assert list(read.encode(text)) == list(whole.encode(text))
    assert read.published_files["vocab.txt"] == (folder / "vocab.txt").read_bytes()


def test_built_of_merges(copied, tmp_path):
    folder = copied("gpt2")
    whole = from_hf.check(str(folder)).tokenizer
    Tokenizer.from_file(str(folder / "tokenizer.json")).model.save(str(folder))
    (folder / "tokenizer.json").unlink()
    read = published.import_folder(folder, tmp_path / "run").tokenizer
    assert read.config["special"] == whole.config["special"]
    for text in made.lines(50):
        assert list(read.encode(text)) == list(whole.encode(text))
    (folder / "merges.txt").write_text("a b c\n")
    refused(folder, "its tokenizer cannot be read")


@pytest.mark.parity
@pytest.mark.parametrize("model_type", IDS)
def test_older_files_give_the_ids_of_transformers(model_type, copied):
    from transformers import AutoTokenizer

    folder = copied(model_type)
    model = Tokenizer.from_file(str(folder / "tokenizer.json")).model
    model.save(str(folder))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text("{}")
    ours = from_hf.check(str(folder)).tokenizer
    theirs = AutoTokenizer.from_pretrained(str(folder))
    settings = {"add_special_tokens": False, "split_special_tokens": True}
    texts = [*made.lines(500), "Élan 東京 😀 \t\n [MASK] <|endoftext|> "]
    for text in texts:
        assert ours.encode(text).tolist() == theirs(text, **settings)["input_ids"]
