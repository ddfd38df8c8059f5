"""Masks of texts: where they are cut, what is proposed for them, and what transformers proposes."""

import functools
import json

import jax
import numpy as np
import published
import published_tokenizers
import pytest
import stock_classes
import tool_run

from lmjax.data import files, tokenizer_training
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.tokenizer import IdsTokenizer
from lmjax.errors import UserError
from lmjax.infer import fill_mask
from lmjax.train import trained

TEXT = "It was the best of <mask>, it was\tthe<mask><mask> of times."


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tok")
    size = {"vocab_size": 400, "model_type": "bpe", "sample_bytes": 50_000}
    tokenizer_training.train(files.find_files("bundled:corpus_small"), folder, **size)
    return tokenizer_lib.load(folder)


@pytest.fixture(scope="module")
def runs(tokenizer, tmp_path_factory):
    """family -> workdir of a model with random weights."""
    root = tmp_path_factory.mktemp("runs")
    longest = {"bert": 64, "roberta": 64, "gpt2": 64}
    for family in ("bert", "roberta", "modernbert", "gpt2", "t5"):
        more = {"max_positions": longest[family]} if family in longest else {}
        published.make_run(root / family, family, tokenizer, **more)
    return root


@functools.cache
def load(workdir):
    return trained.load(str(workdir), devices=jax.devices()[:1])


def filled(model, texts, top_k=5):
    frame = fill_mask.MaskFraming(model.framing)
    examples = [frame({"text": text}) for text in texts]
    filler = fill_mask.Filler(
        model.model,
        model.params,
        model.batch_sharding,
        model.tokenizer,
        top_k=top_k,
        batch_tokens=128,
    )
    with model.context():
        return examples, filler(examples)


def test_masks_are_cut_out_with_the_space_in_front(runs):
    model = load(runs / "bert")
    (example,), _ = filled(model, [TEXT])
    encode = lambda text: model.tokenizer.encode(text).tolist()
    parts = [encode("It was the best of"), encode(", it was\tthe"), encode(" of times.")]
    assert example.ids.tolist() == [3, *parts[0], 4, *parts[1], 4, 4, *parts[2], 1]
    assert example.masks.tolist() == np.flatnonzero(example.ids == 4).tolist()


def test_candidates_are_the_likeliest_text(runs):
    model = load(runs / "bert")
    texts = [TEXT, "<mask>" * 11, "no more than <mask>"]
    examples, found = filled(model, texts, top_k=1000)
    assert [len(masks) for masks in found] == [3, 11, 1]
    for example, masks in zip(examples, found, strict=True):
        expected_TV = np.exp(stock_classes.logprobs(model, example.ids.tolist()))
        for place, candidates in zip(example.masks, masks, strict=True):
            ids, probabilities = map(np.array, zip(*candidates, strict=True))
            assert sorted(ids) == list(range(5, model.tokenizer.vocab_size))
            np.testing.assert_allclose(probabilities, expected_TV[place, ids], atol=1e-5)
            assert (np.diff(probabilities) <= 0).all()


def test_the_tool(runs, tmp_path):
    lines = [{"text": TEXT, "n": 1}, {"text": "A <mask>!"}]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    flags = [f"--workdir={runs / 'bert'}", "--top_k=2"]
    files = [f"--input={tmp_path / 'in.jsonl'}", f"--output={tmp_path / 'out.jsonl'}"]
    done = tool_run.run("fill_mask", *flags, *files)
    assert done.code == 0, done.err
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written[0].keys() == {"text", "n", "masks"}
    assert [len(mask) for mask in written[0]["masks"]] == [2, 2, 2]
    assert written[0]["masks"][0][0].keys() == {"token", "id", "probability"}
    tokenizer = load(runs / "bert").tokenizer
    ((best, _),) = written[1]["masks"]
    assert best["sequence"] == f"A{tokenizer.decode([best['id']])}!"
    shown = tool_run.run("fill_mask", *flags, "--text=A <mask>!").out
    assert best["token"] in shown
    assert f"{best['probability']:.4f}" in shown


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("gpt2", r"a decoder, which fills no masks; tools/generate.py"),
        ("t5", r"an encoder-decoder; tools/generate.py fills spans"),
    ],
)
def test_who_fills_no_masks(runs, family, message):
    with pytest.raises(UserError, match=message):
        fill_mask.MaskFraming(load(runs / family).framing)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"txt": "a"}, "no field text"),
        ({"text": 5}, "text is 5, not text"),
        ({"text": "none here"}, "has no <mask>; write one"),
        ({"text": "<mask> " + "again " * 60}, "positions, the model has 64"),
    ],
)
def test_what_is_refused_of_a_line(runs, record, message):
    with pytest.raises(UserError, match=message):
        fill_mask.MaskFraming(load(runs / "bert").framing)(record)


def test_ids_are_not_enough(runs, tmp_path):
    published.make_run(tmp_path / "run", "bert", IdsTokenizer(512, {"mask": 4, "bos": 3, "eos": 1}))
    with pytest.raises(UserError, match="without its tokenizer"):
        fill_mask.MaskFraming(load(tmp_path / "run").framing)


def same_as_theirs(workdir, folder, texts):
    """Top candidates, probabilities and sentences of an exported folder's pipeline."""
    model = load(workdir)
    fill = stock_classes.library().pipeline("fill-mask", model=str(folder), tokenizer=str(folder))
    proposed = {*range(model.tokenizer.vocab_size)} - {*model.tokenizer.special_ids}
    examples, found = filled(model, texts)
    for text, example, masks in zip(texts, examples, found, strict=True):
        theirs = fill(text.replace("<mask>", fill.tokenizer.mask_token), top_k=200)
        theirs = [theirs] if len(masks) == 1 else theirs
        described = fill_mask.described(example, masks, model.tokenizer)
        for mine, other in zip(described, theirs, strict=True):
            other = [o for o in other if o["token"] in proposed][:5]
            assert [c["id"] for c in mine] == [o["token"] for o in other]
            np.testing.assert_allclose(
                [c["probability"] for c in mine], [o["score"] for o in other], atol=1e-4
            )
            if len(masks) == 1:
                assert [c["sequence"] for c in mine] == [o["sequence"] for o in other]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # 2026-11: of third-party imports (torch, transformers)
@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_the_pipeline_of_transformers_fills_the_same(runs, tmp_path, family):
    stock_classes.library()
    published.export_folder(runs / family, tmp_path / "out")
    same_as_theirs(runs / family, tmp_path / "out", [TEXT, "Call me <mask>.", "<mask> is it"])


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # 2026-11: of third-party imports (torch, transformers)
def test_an_imported_bert_with_its_own_tokenizer(tmp_path):
    stock_classes.library()
    ids = {"pad": 0, "cls": 2, "sep": 3}
    published.make(tmp_path / "bert", "bert", ids=ids, vocab_size=640, max_positions=64)
    published_tokenizers.wordpiece(tmp_path / "bert")
    published.import_folder(tmp_path / "bert", tmp_path / "run")
    texts = ["Call me [MASK] today", "The <mask> whale and the <mask>"]
    same_as_theirs(tmp_path / "run", tmp_path / "bert", texts)
