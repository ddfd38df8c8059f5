"""Published tokenizers: the face of all others, no special id from text, faults."""

import json
import pickle
import unicodedata
import uuid

import numpy as np
import published_tokenizers as made
import pytest
from test_tokenizer import CORNERS
from tokenizers import normalizers

from lmjax import paths
from lmjax.data import cache, json_tokenizer, prepare, published_tokenizer, staging, tokenizer
from lmjax.data.json_tokenizer import JsonTokenizer
from lmjax.data.store import Store
from lmjax.data.windows import Windows
from lmjax.errors import UserError
from lmjax.noise import RowNoise
from lmjax.objectives.clm import CausalLM
from lmjax.objectives.mlm import MaskedLM
from lmjax.objectives.span_corruption import SpanCorruption

TEXTS = ["The first one. [SEP] it says", f"A second {made.END}", "third"] * 20
SPELT = " ".join([*made.BERT_TOKENS, made.END, "<s>", "</s>", "<mask>"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return {
        "wordpiece": made.wordpiece(root / "wordpiece"),
        "byte_level": made.byte_level(root / "byte_level"),
        "pieces": made.pieces(root / "pieces", sentinels=20),
        "llama3": made.byte_level(root / "llama3", words=made.LLAMA3),
        "qwen": made.byte_level(root / "qwen", words=made.LLAMA3, normalizer=normalizers.NFC()),
    }


@pytest.fixture(scope="module")
def wordpiece(folders):
    return JsonTokenizer(made.files_of(folders["wordpiece"]))


@pytest.fixture(scope="module")
def byte_level(folders):
    return JsonTokenizer(made.files_of(folders["byte_level"]))


@pytest.fixture(params=["wordpiece", "byte_level", "pieces", "llama3", "qwen"])
def any_json(request, folders):
    return JsonTokenizer(made.files_of(folders[request.param]))


@pytest.fixture
def changed(folders, tmp_path):
    """(kind, change of tokenizer.json, content of tokenizer_config.json) -> tokenizer."""

    def get(kind, change, said=None):
        files = made.files_of(folders[kind])
        content = json.loads(files["tokenizer.json"])
        change(content)
        files["tokenizer.json"] = json.dumps(content).encode()
        if said is not None:
            files["tokenizer_config.json"] = json.dumps(said).encode()
        return JsonTokenizer(files)

    return get


@pytest.mark.parametrize("text", [*CORNERS, SPELT])
def test_byte_level_loses_nothing(byte_level, text):
    ids = byte_level.encode(text)
    assert ids.dtype == np.int32
    assert byte_level.decode(ids) == text
    assert byte_level.bytes_per_id[ids].sum() == len(text.encode())


def test_other_words_and_normalizers(folders):
    names = ("llama3", "pieces", "qwen")
    llama3, pieces, qwen = (JsonTokenizer(made.files_of(folders[name])) for name in names)
    for text in [*CORNERS, SPELT]:
        for model in (llama3, pieces):
            assert model.decode(model.encode(text)) == text
            assert model.bytes_per_id[model.encode(text)].sum() == len(text.encode())
        normal = unicodedata.normalize("NFC", text)
        assert qwen.decode(qwen.encode(text)) == normal
        assert qwen.bytes_per_id[qwen.encode(text)].sum() == len(normal.encode())


def test_unigram_with_byte_fallback(changed):
    def to_unigram(content):
        ids = content["model"]["vocab"]
        pieces = [p for p in sorted(ids, key=ids.get) if not p.startswith("<extra_id")]
        vocab = [(p, -10_000.0 if i < 261 else -8.0 - i / 1024) for i, p in enumerate(pieces)]
        content["model"] = {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": True}
        split = {"type": "Split", "pattern": {"String": "<"}, "behavior": "Isolated"}
        steps = [content["pre_tokenizer"], split | {"invert": False}]
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}

    model = changed("pieces", to_unigram)
    for text in CORNERS:
        ids = model.encode(text)
        assert model.decode(ids) == text
        assert model.bytes_per_id[ids].sum() == len(text.encode())
        assert not set(ids) & set(model.special_ids)


def test_wordpiece_loses_case_and_white_space(wordpiece):
    ids = wordpiece.encode("The  Whale,\tsaid he: the whale!")
    assert wordpiece.decode(ids) == "the whale, said he : the whale!"
    assert ids[0] == wordpiece._encoder.token_to_id("the")
    text = " ".join(made.lines(100))
    assert wordpiece.bytes_per_id[wordpiece.encode(text)].sum() == pytest.approx(
        len(text.encode()), rel=0.05
    )


def test_special_ids(wordpiece, byte_level):
    names = ("pad", "unk", "bos", "eos", "mask", "cls", "sep")
    found = [getattr(wordpiece, f"{name}_id") for name in names]
    assert found == [0, 1, 2, 3, 4, 2, 3]
    assert wordpiece.special_ids == (0, 1, 2, 3, 4)
    found = [getattr(byte_level, f"{name}_id") for name in names]
    assert found == [0, None, 0, 0, None, None, None]
    assert byte_level.special_ids == (0,)
    ids = wordpiece.ids(640)
    assert (ids.num_ids, ids.num_rows, ids.bos, ids.eos, ids.mask) == (600, 640, 2, 3, 4)
    for model in (wordpiece, byte_level):
        assert model.config["requested_vocab_size"] == model.vocab_size == 600
        assert (model.bytes_per_id[list(model.special_ids)] == 0).all()
        assert model.decode([*model.special_ids, *model.encode("x")]) == "x"
        with pytest.raises(ValueError, match="outside the vocabulary"):
            model.decode([600])
    assert [wordpiece.piece(i) for i in range(5)] == made.BERT_TOKENS
    assert byte_level.piece(byte_level.encode(" ")[0]) == "Ġ"


def test_text_spells_no_special_token(any_json):
    ids = any_json.encode(SPELT)
    assert set(ids) & set(any_json.special_ids) <= {any_json.unk_id}
    assert len(ids) > 30


def test_a_named_token_that_is_not_marked_is_none_of_text(changed):
    def unmark(content):
        for token in content["added_tokens"]:
            token["special"] = False

    for kind in ("wordpiece", "byte_level"):
        model = changed(kind, unmark)
        assert not set(model.encode(SPELT)) & (set(model.special_ids) - {model.unk_id})


def test_added_tokens_that_are_text(changed):
    def add(content):
        more = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        content["added_tokens"].append({"id": 605, "content": "é\t", "special": False, **more})
        content["added_tokens"].append({"id": 606, "content": "<tool>", "special": True, **more})
        content["model"]["vocab"] |= {"é\t": 605, "<tool>": 606}

    model = changed("byte_level", add)
    assert model.special_ids == (0, *range(600, 605), 606)
    assert model.piece(603) == "<603>"
    text = "caf\u00e9\té\t<tool>"
    ids = model.encode(text)
    assert list(ids).count(605) == 2
    assert (model.decode(ids), 606 in ids) == (text, False)
    assert model.bytes_per_id[ids].sum() == len(text.encode())


@pytest.mark.parametrize(
    ("said", "ids"),
    [
        ({}, (0, 3, 2, 4)),  # by their usual names
        ({"pad_token": None}, (3, 3, 2, 4)),  # pad falls back to eos
        ({"mask_token": {"content": "[UNK]"}}, (0, 3, 2, 1)),
        ({"cls_token": None, "sep_token": None}, (None, None, None, 4)),
        ({"cls_token": None, "eos_token": "[MASK]"}, (0, 4, 4, 4)),
        ({"mask_token": "not there"}, (0, 3, 2, None)),
    ],
)
def test_where_special_ids_come_from(changed, said, ids):
    if said.get("cls_token", 0) is None and "sep_token" in said:
        said = said | {"pad_token": None}
    model = changed("wordpiece", lambda content: None, said)
    assert (model.pad_id, model.eos_id, model.bos_id, model.mask_id) == ids


def test_long_texts_have_the_ids_of_the_whole(any_json, monkeypatch):
    text = " ".join(made.lines(60)) + "   \n\n two   spaces \t x" + "東京" * 50
    whole = any_json._encoder.encode(text, add_special_tokens=False).ids
    assert any_json._may_be_cut
    for limit in (1, 50, 1000):
        monkeypatch.setattr(json_tokenizer, "MAX_PART_CHARS", limit)
        assert "".join(any_json._parts(text)) == text
        assert list(any_json.encode(text)) == whole
    assert len(list(any_json._parts(text))) > 10


@pytest.mark.parametrize("words", [None, {"type": "ByteLevel", "use_regex": False}])
def test_what_knows_no_words_is_not_cut(changed, monkeypatch, words):
    def change(content):
        more = {"add_prefix_space": False, "trim_offsets": True}
        content["pre_tokenizer"] = None if words is None else words | more

    if words is None:
        with pytest.raises(UserError, match=r"tokenizer.json is BPE; supported are WordPiece,"):
            changed("byte_level", change)
        return
    model = changed("byte_level", change)
    monkeypatch.setattr(json_tokenizer, "MAX_PART_CHARS", 5)
    assert len(list(model._parts("one two three"))) == 1
    assert model.decode(model.encode("one two three")) == "one two three"


def test_truncation_padding_and_dropout_are_off(changed):
    def change(content):
        content["truncation"] = {"max_length": 3, "strategy": "LongestFirst", "stride": 0}
        content["truncation"]["direction"] = "Right"
        content["model"]["dropout"] = 0.5

    model = changed("byte_level", change)
    found = {tuple(model.encode("a whale of a time and more of it")) for _ in range(5)}
    assert len(found) == 1
    assert len(found.pop()) > 5


def test_pickle_and_save(any_json, tmp_path):
    any_json.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["published", "tokenizer_config.json"]
    assert made.files_of(tmp_path / "published") == any_json.published_files
    for other in (pickle.loads(pickle.dumps(any_json)), tokenizer.load(tmp_path)):
        assert (other.sha256, other.config) == (any_json.sha256, any_json.config)
        assert np.array_equal(other.encode(SPELT), any_json.encode(SPELT))
    more = any_json.config["special"] | {"decoder_start": 3}
    assert JsonTokenizer(any_json.published_files, more).sha256 != any_json.sha256


@pytest.mark.parametrize("fault", ["missing", "changed", "name", "special", "files"])
def test_faults_of_the_folder(byte_level, tmp_path, fault):
    byte_level.save(tmp_path)
    file, path = tmp_path / "published" / "tokenizer.json", tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    if fault == "missing":
        file.unlink()
    elif fault == "changed":
        file.write_bytes(file.read_bytes() + b" ")
    elif fault == "name":
        config["files"] = {"../tokenizer_config.json": "0"}
    elif fault == "special":
        config["special"]["eos"] = 600
    else:
        config["files"] = []
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="tokenizer") as caught:
        tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_text_that_would_become_special_is_refused(changed):
    def only_words(content):
        content["pre_tokenizer"] = {"type": "WhitespaceSplit"}
        content["added_tokens"] = []
        content["normalizer"] = None

    with pytest.raises(UserError, match=r"spells \[PAD\] would become the pad id"):
        changed("wordpiece", only_words, {"pad_token": "[PAD]"})


def _store(tmp_path, model):
    model.save(tmp_path)
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    prepare.prepare([str(text)], tmp_path, str(tmp_path / "store"), eval_fraction=0, num_workers=2)
    return Store.open(str(tmp_path / "store"), "train")


def test_rows_of_masked_lm(wordpiece, tmp_path):
    store = _store(tmp_path, wordpiece)
    tokens, documents = Windows(store, 30, 30).read(np.arange(10))
    assert [(tokens == i).sum() for i in (0, 2, 4)] == [0, 0, 0]
    assert set(np.flatnonzero(np.diff(documents[0]))) <= set(np.flatnonzero(tokens[0] == 3))
    batch = MaskedLM(32, wordpiece.ids(640))(
        tokens, documents, RowNoise(0, np.zeros(10, int), np.arange(10))
    )
    assert (batch["inputs"][:, 0] == wordpiece.cls_id).all()
    assert (batch["inputs"][:, -1] == wordpiece.sep_id).all()
    used = batch["weights"] > 0
    shown = np.take_along_axis(batch["inputs"], batch["predict_at"], 1)[used]
    assert (shown == wordpiece.mask_id).mean() > 0.6
    assert not np.isin(batch["targets"][used], wordpiece.special_ids).any()
    assert not np.isin(shown, [0, 1, 2, 3]).any()


def test_rows_of_causal_lm(byte_level, tmp_path):
    store = _store(tmp_path, byte_level)
    whole = np.concatenate([[*byte_level.encode(t), byte_level.eos_id] for t in TEXTS])
    tokens, documents = Windows(store, 33, 32).read(np.arange(2))
    assert np.array_equal(tokens[0], whole[:33])
    batch = CausalLM(32)(tokens, documents, None)
    ends = batch["targets"] == byte_level.eos_id
    assert ends.sum() > 2
    assert np.array_equal(np.diff(batch["segment_ids"])[0] == 1, ends[0, :-1])


def test_rows_of_span_corruption(folders, changed):
    model = JsonTokenizer(made.files_of(folders["pieces"]))
    ids = model.ids(700)
    assert (ids.first_sentinel, ids.num_sentinels, model.vocab_size) == (659, 20, 660)
    assert model.piece(ids.sentinel(1)) == "<extra_id_1>"
    text = model.encode(" ".join(made.lines(5)))
    objective = SpanCorruption(32, ids)
    tokens = text[None, : objective.window_length]
    noise = RowNoise(0, np.zeros(1, int), np.zeros(1, int))
    batch = objective(tokens, np.zeros(tokens.shape, int), noise)
    both = [*batch["enc_inputs"][0], *batch["targets"][0]]
    assert sorted(i for i in both if i not in model.special_ids) == sorted(tokens[0])
    wanted = [ids.sentinel(i) for i in range(objective.num_spans)]
    assert sorted(both)[-2 * len(wanted) :] == sorted(2 * wanted)
    with pytest.raises(UserError, match="but there are only 20 sentinels"):
        SpanCorruption(512, ids)

    def more_text_above(content):
        content["added_tokens"][-1]["special"] = False

    assert changed("pieces", more_text_above).ids(700).first_sentinel is None


def test_what_an_objective_lacks(byte_level, changed, tmp_path):
    with pytest.raises(UserError, match="needs a mask token, and the tokenizer names none"):
        MaskedLM(32, byte_level.ids(640))
    endless = changed("wordpiece", lambda content: None, {"sep_token": None})
    for call in (lambda: endless.ids(640), lambda: _store(tmp_path, endless)):
        with pytest.raises(UserError, match="no token that ends a text"):
            call()


def test_held_out_text_of_its_own(byte_level, tmp_path):
    store = _store(tmp_path, byte_level)
    settings = {"text_key": "text", "text_split": "file", "num_workers": 1, "log": print}
    other = tmp_path / "other.txt"
    other.write_text("Something else.")
    (found,) = cache.open_eval(str(other), [store.path], cache_dir=str(tmp_path), **settings)
    assert found.num_tokens == len(byte_level.encode("Something else.")) + 1


def test_a_store_in_a_bucket(wordpiece, tmp_path):
    store = _store(tmp_path, wordpiece)
    url = f"memory://stores/{uuid.uuid4().hex}"
    paths.upload(store.path, url, paths.files_below(store.path))
    folder = staging.fetch(url, str(tmp_path / "cache"), print)
    assert paths.files_below(folder) == paths.files_below(store.path)
    found = tokenizer.load(paths.join(url, "tokenizer"))
    assert found.published_files == wordpiece.published_files


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["wordpiece", "byte_level", "pieces", "llama3", "qwen"])
def test_ids_are_those_of_transformers(kind, folders):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    model_type = {"wordpiece": "bert", "byte_level": "gpt2"}.get(kind)
    (folders[kind] / "config.json").write_text(json.dumps({"model_type": model_type}))
    cls = PreTrainedTokenizerFast if model_type is None else AutoTokenizer
    theirs = cls.from_pretrained(str(folders[kind]))
    if kind in ("llama3", "qwen"):
        theirs.eos_token = made.END
    names = [n for n in published_tokenizer.FILES if (folders[kind] / n).exists()]
    ours = JsonTokenizer({n: (folders[kind] / n).read_bytes() for n in names})
    texts = [*made.lines(500), *CORNERS, SPELT]
    settings = {"add_special_tokens": False, "split_special_tokens": True}
    for text, ids in zip(texts, ours.encode_batch(texts), strict=True):
        assert ids.tolist() == theirs(text, **settings)["input_ids"]
    assert (ours.eos_id, ours.mask_id) == (
        theirs.sep_token_id if kind == "wordpiece" else theirs.eos_token_id,
        theirs.mask_token_id,
    )
