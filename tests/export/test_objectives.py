"""What an export says and does of the objective it was trained by."""

import dataclasses
import json

import jax
import numpy as np
import published
import pytest
import small_run
import stock_classes

from lmjax import families, objectives, runner
from lmjax import fields as fields_lib
from lmjax.export import card, to_hf, tokenizer_files
from lmjax.export.facts import Facts
from lmjax.export.sections import Subject
from lmjax.infer.examples import Framing
from lmjax.infer.score import Scorer
from lmjax.objectives.description import AFTER, BEFORE, FILLING, MASK
from lmjax.train import trained as trained_lib
from lmjax.train.workdir import RunConfig

FAMILY = {"encoder": "bert", "decoder": "gpt2", "encoder_decoder": "t5"}
PARTS = (("denoising", 1.0, ()), ("span_corruption", 3.0, (("mask_rate", 0.5),)))
NAMED = {  # what a card has to say
    "clm": "a decoder, pre-trained by causal language modelling",
    "mlm": "an encoder, pre-trained by masked language modelling",
    "span_corruption": "an encoder-decoder, pre-trained by span corruption",
    "denoising": "an encoder-decoder, pre-trained by denoising",
    "prefix_lm": "an encoder-decoder, pre-trained by prefix language modelling",
    "ul2": "an encoder-decoder, pre-trained by UL2's mixture of denoisers",
    "mixture": "an encoder-decoder, pre-trained by a mixture of denoising and span corruption",
}
LOSSES = {"loss": 4.0, "content_loss": 5.0, "unigram_loss": 6.0, "content_unigram_loss": 7.0}
NO_TEXT = (None, None, None, {})
USED = {  # lines of its Python
    "denoising": 'tokenizer(f"The weather is {tokenizer.mask_token} today."',
    "span_corruption": 'tokenizer("It is <extra_id_0> today."',
    "prefix_lm": 'tokenizer("The weather is"',
    "ul2": 'tokenizer("<extra_id_128>It is <extra_id_0> today."',
    "mixture": 'tokenizer("It is <extra_id_0> today."',
}


@pytest.fixture
def subject(trained, make_config):
    """(objective, fields of the config) -> what the card of such a run is made of."""

    def make(name, family=None, has_tokenizer=True, **fields):
        family = family or FAMILY[objectives.OBJECTIVES[name].ARCHITECTURE or "encoder_decoder"]
        tokenizer = trained("bpe", 600)
        config = make_config(family, tokenizer, {"name": name, "mixture": PARTS})
        config = fields_lib.replace(config, fields)
        rows = [{"split": s, "step": 5, "tokens": 9, **LOSSES} for s in ("train", "eval")]
        found = Facts("mine", RunConfig(config, None), 5, {}, rows, tokenizer.config, *NO_TEXT)
        ids = trained_lib.special_ids(config, tokenizer)
        sentinels = trained_lib.sentinel_ids(config, tokenizer)
        (fmt, *_) = families.FAMILIES[family].FORMATS
        files = ["tokenizer.json"] * has_tokenizer
        return Subject(found, fmt, ids, "float32", None, None, sentinels, True, files)

    return make


@pytest.mark.parametrize("name", objectives.PRETRAINING)
def test_a_card_names_the_objective_and_its_use(name, subject):
    text = str(card.make(subject(name)))
    assert NAMED[name] in text
    assert ("span corruption" in text) == (name in ("span_corruption", "mixture"))
    assert USED.get(name, "tokenizer(") in text
    for has_tokenizer in (True, False):
        content = str(card.make(subject(name, has_tokenizer=has_tokenizer)))
        code = content.split("```python\n")[1].split("```")[0]
        compile(code, name, "exec")
        assert ("tokenizer" in code) == has_tokenizer


def test_a_bart_by_denoising_is_no_span_corruption(subject):
    text = str(card.make(subject("denoising", "bart", **{"objective.mask_rate": 0.3})))
    assert "span corruption" not in text
    assert "sentinel" not in text
    assert "30 % of the words are hidden, in spans of 3 words on average" in text
    assert "As it is, it restores a text" in text
    assert "Content loss leaves out what the encoder reads as well, begin and end tokens." in text


def test_shares_of_a_mixture_and_rates_of_held_out_text(subject):
    text = str(card.make(subject("mixture")))
    assert "25 % by denoising (15 % of the words" in text
    assert "75 % by span corruption (50 % of the tokens" in text
    assert "a text of its own is framed as by span corruption" in text
    assert "in denoising what the encoder reads as well" in text
    text = str(card.make(subject("mlm", **{"objective.eval_mask_rate": 0.3})))
    assert "| objective | masked language modelling: 15 % of the tokens are predicted;" in text
    assert "| on held-out text | 30 % of the tokens are predicted;" in text


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("clm", {}, "stream of all documents; no document sees another"),
        ("clm", {"data.cross_documents": True}, "of all documents; all of a row is one text"),
        ("denoising", {}, "stream of all documents; all of a row is one text"),
        ("denoising", {"data.packing": "document"}, "one document each, longer ones cut"),
        ("mlm", {"data.packing": "pack"}, "whole documents as fit, longer ones cut; no document"),
    ],
)
def test_what_a_row_holds(name, fields, said, subject):
    text = str(card.make(subject(name, **fields)))
    (line,) = (line for line in text.splitlines() if line.startswith("| rows |"))
    assert said in line


def test_ids_stand_for_what_has_no_name(subject):
    """Where sentinels are not named, and where there is no tokenizer."""
    unnamed = dataclasses.replace(subject("ul2"), names_sentinels=False)
    rows = unnamed.facts.config.model.vocab_size
    text = str(card.make(unnamed))
    words = '*tokenizer("It is", add_special_tokens=False).input_ids'
    assert f"torch.tensor([[{rows - 129}, {words}, {rows - 1}, " in text
    text = str(card.make(subject("ul2", has_tokenizer=False)))
    assert f"input_ids = torch.tensor([[{rows - 129}, 7, {rows - 1}, 8, 1]])" in text
    text = str(card.make(subject("denoising", has_tokenizer=False)))
    assert "input_ids = torch.tensor([[3, 7, 4, 8, 1]])" in text


@pytest.mark.parametrize("name", objectives.PRETRAINING)
def test_what_an_objective_says_holds_together(name, subject):
    said = subject(name).objective
    before, behind = said.frame
    assert {*before, *behind} <= {"eos", *said.special}
    assert {*said.special} <= {"bos", "cls", "sep", "mask"}
    two = subject(name).facts.config.model.architecture == "encoder_decoder"
    assert bool(said.prompts) == two
    count = objectives.num_sentinels(subject(name).facts.config)
    gaps = [gap for gap in (said.gap, said.continuation) if gap is not None]
    assert len(gaps) == 2 * two
    asked = [prompt.parts for prompt in said.prompts]
    asked += [gap.source + gap.given + gap.scored for gap in gaps]
    for part in (part for parts in asked for part in parts):
        assert part != MASK or "mask" in said.special
        assert isinstance(part, str) or -count <= part < count
    for gap in gaps:
        assert (gap.scored.count(FILLING), gap.source.count(BEFORE)) == (1, 1)
        assert FILLING not in gap.source + gap.given
    assert not two or AFTER in said.gap.source + said.gap.scored


def test_the_tokenizer_of_a_mixture(trained, make_config):
    """Names of all parts, framed as by the heaviest."""
    tokenizer = trained("bpe", 600)
    for weight, frame in ((1.0, ["</s>"]), (9.0, ["<s>", "</s>"])):
        mixed = (("denoising", weight, ()), PARTS[1])
        config = make_config("bart", tokenizer, {"name": "mixture", "mixture": mixed})
        made = tokenizer_files.files(config, tokenizer)
        said = json.loads(made["tokenizer_config.json"])
        assert (said["mask_token"], len(said["additional_special_tokens"])) == ("<mask>", 128)
        single = json.loads(made["tokenizer.json"])["post_processor"]["single"]
        assert [p["SpecialToken"]["id"] for p in single if "SpecialToken" in p] == frame


@pytest.mark.parametrize(
    ("family", "objective", "start", "forced"),
    [
        ("bart", "denoising", 1, 3),
        ("bart", "span_corruption", 1, None),
        ("t5", "denoising", 0, 3),
        ("t5", "ul2", 0, None),
    ],
)
def test_what_a_decoder_begins_with(family, objective, start, forced, trained, tmp_path):
    published.make_run(
        tmp_path, family, trained("bpe", 600), objective=objective, vocab_size=768, head_dim=8
    )
    model = to_hf.describe(str(tmp_path), "float32")
    for said in (model.hf_config, model.generation_config):
        ids = [said.get(f"{name}_token_id") for name in ("decoder_start", "forced_bos", "eos")]
        assert ids == [start, forced, 1]


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    """(workdir, export) of a BART after five steps of denoising."""
    folder = tmp_path_factory.mktemp("bart")
    text = folder / "text.jsonl"
    text.write_text("".join(small_run.CORPUS.read_text().splitlines(keepends=True)[:60]))
    (folder / "config.py").write_text(small_run.config(text, folder / "cache", "bart"))
    overrides = {"train.num_steps": 5, "data.packing": "pack", "eval.num_batches": 1}
    request = runner.Request(str(folder / "config.py"), str(folder / "run"), overrides)
    assert runner.train(request) == 0
    small_run.export(folder / "run", folder / "exported")
    return folder / "run", folder / "exported"


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # 2026-11: of third-party imports (torch, transformers)
def test_a_trained_bart_is_the_same_to_transformers(bart):
    theirs, (workdir, folder) = stock_classes.library(), bart
    run = trained_lib.load(str(workdir), devices=jax.devices()[:1])
    stock_classes.assert_same_tokenizer(run, folder, stock_classes.bundled_lines())
    stock_classes.assert_same_use(run, folder)
    lines = [
        {"source": "The whale, the <mask> whale!", "target": "The whale, the white whale!"},
        {"source": "It was\tthe best", "target": "It was the best of times."},
    ]
    frame = Framing(
        run.config.model, run.model.vocab_size, run.tokenizer, run.frame, run.decoder_start_id
    )
    scorer = Scorer(run.model, run.params, run.batch_sharding, batch_tokens=1024)
    with run.context():
        mine = scorer([frame(line) for line in lines])
    tokenizer = theirs.AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    model = theirs.AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True).eval()
    for line, score in zip(lines, mine, strict=True):
        source, labels = (
            tokenizer(line[key], return_tensors="pt").input_ids for key in ("source", "target")
        )
        logits = model(input_ids=source, labels=labels).logits.log_softmax(-1)
        expected = logits.gather(-1, labels[..., None]).sum().item()
        assert score.num_tokens == labels.shape[1]
        np.testing.assert_allclose(score.logprob, expected, rtol=0, atol=1e-3)
