"""Exported folders as users of transformers take them: AutoTokenizer, pipelines, generate. What
comes out has to be lmjax's. Needs the extra [parity]."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from lmjax.data import files as files_lib
from lmjax.export import to_hf
from lmjax.families import weights
from lmjax.train import checkpoint, workdir
from lmjax.train import trained as trained_lib

pytestmark = [
    pytest.mark.parity,
    # 2026-11: third-party imports warn (torch, transformers on Python 3.11).
    pytest.mark.filterwarnings("ignore"),
]
ROWS = 800  # of the embedding: 600 ids, unused ones, 128 sentinels
LONGEST = 48
ENCODERS = {"bert": {}, "roberta": {}, "modernbert": {"num_layers": 4, "window": 16}}
DECODERS = {"gpt2": {}, "bloom": {"mlp_size": 128}, "llama": {"num_kv_heads": 1}}
BOTH = {"t5": {}, "bart": {}}
FIELDS = ENCODERS | DECODERS | BOTH
KIND = {name: "unigram" if number % 2 else "bpe" for number, name in enumerate(FIELDS)}


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch")
    found = pytest.importorskip("transformers")
    found.logging.set_verbosity_error()
    found.logging.disable_progress_bar()
    return found


@pytest.fixture(scope="module")
def lines():
    path = files_lib.find_files("bundled:corpus_small")[0]
    texts = [json.loads(line)["text"] for line in Path(path).read_text("utf-8").splitlines()]
    return [line for text in texts for line in text.split("\n")][:2000]


@pytest.fixture
def made(trained, make_config, tmp_path):
    """Family -> (the run of a model of random weights, the folder it is exported to)."""

    def make(family):
        tokenizer = trained(KIND[family], 600)
        config = make_config(family, tokenizer, vocab_size=ROWS, **FIELDS[family])
        rng, work = np.random.default_rng(0), tmp_path / "work"
        shapes = weights.shapes(config.model)
        params = {k: rng.normal(0, 0.3, shape).astype("f") for k, shape in shapes.items()}
        meta = {"seed": 0}
        checkpoint.save_weights(str(work / "checkpoints"), weights.nested(params), meta)
        (work / "tokenizer").mkdir()
        tokenizer.save(work / "tokenizer")
        workdir.write(work, workdir.RunConfig(config, {"file": "config.py", "sha256": ""}))
        folder = tmp_path / "exported"
        folder.mkdir()
        to_hf.export(str(work), str(folder), progress=lambda done, of: None)
        return trained_lib.load(str(work), devices=jax.devices()[:1]), str(folder)

    return make


def logprobs(run, ids, source=None):
    """lmjax: log p at every position of one row, float64 [T, V]."""

    def fields(ids, prefix=""):
        real = np.arange(LONGEST) < len(ids)
        padded = np.where(real, np.resize(np.array(ids), LONGEST), 0)
        values = {"inputs": padded, "segment_ids": real, "positions": np.arange(LONGEST) * real}
        return {f"{prefix}{k}": v[None].astype(np.int32) for k, v in values.items()}

    batch = fields(ids) | ({} if source is None else fields(source, "enc_"))
    with run.context():
        logits = _logits(run.model, run.params, batch)
    return np.asarray(jax.nn.log_softmax(logits[0, : len(ids)]), np.float64)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, batch):
    return model.apply({"params": params}, batch)


def greedy(run, ids, count, source=None):
    """lmjax: the likeliest next ids, up to the end."""
    ids, start = list(ids), len(ids)
    while len(ids) < start + count and (len(ids) == start or ids[-1] != run.tokenizer.eos_id):
        ids.append(int(logprobs(run, ids, source)[-1].argmax()))
    return ids[start:]


def assert_same_logprobs(output, expected, row=0):
    """`output`: of their model, logits [B, T, V]."""
    found = output.logits.log_softmax(-1)[row].detach().numpy()
    assert np.abs(expected).max() > 5
    assert np.abs(found - expected).max() <= 1e-4


@pytest.mark.parametrize("family", FIELDS)
def test_ids(transformers, made, lines, family):
    run, folder = made(family)
    ours = [ids.tolist() for ids in run.tokenizer.encode_batch(lines)]
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert theirs(lines, add_special_tokens=False)["input_ids"] == ours
    before, behind = ([3] if family in ENCODERS else []), ([] if family in DECODERS else [1])
    encoded = theirs(lines)
    assert encoded["input_ids"] == [before + ids + behind for ids in ours]
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert theirs.batch_decode(encoded["input_ids"], skip_special_tokens=True) == lines
    spelled = "a <mask> of <s> and </s>, <pad> <extra_id_0> <0x41>"
    split = transformers.AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    expected = run.tokenizer.encode(spelled).tolist()
    assert split(spelled, add_special_tokens=False)["input_ids"] == expected
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2)
    assert theirs.padding_side == ("left" if family in DECODERS else "right")
    if family in ENCODERS:
        assert (theirs.mask_token_id, theirs.cls_token_id, theirs.sep_token_id) == (4, 3, 1)
    if family in BOTH:
        names = [f"<extra_id_{number}>" for number in range(128)]
        assert theirs.convert_tokens_to_ids(names) == list(range(ROWS - 1, ROWS - 129, -1))
        assert len(theirs) == ROWS
    else:
        assert theirs.bos_token_id == (1 if family in DECODERS else 3)
    said = transformers.AutoConfig.from_pretrained(folder)
    for name in ("pad", "bos", "eos"):
        configured = getattr(said, f"{name}_token_id", None)
        mine = getattr(theirs, f"{name}_token_id")
        assert mine is None or configured in (None, mine), name


@pytest.mark.parametrize("family", ENCODERS)
def test_fill_mask(transformers, made, family):
    run, folder = made(family)
    text = "It was the best of <mask>, it was\tthe worst"
    encode = lambda part: run.tokenizer.encode(part).tolist()
    ids = [3, *encode("It was the best of"), 4, *encode(", it was\tthe worst"), 1]
    expected = logprobs(run, ids)
    best = np.argsort(-expected[ids.index(4)])[:5]
    fill = transformers.pipeline("fill-mask", model=folder, tokenizer=folder)
    found = fill(text, top_k=5)
    assert [answer["token"] for answer in found] == best.tolist()
    scores = np.log([answer["score"] for answer in found])
    np.testing.assert_allclose(scores, expected[ids.index(4)][best], atol=1e-4)
    assert_same_logprobs(fill.model(**fill.tokenizer(text, return_tensors="pt")), expected)


@pytest.mark.parametrize("family", DECODERS)
def test_text_generation(transformers, made, family):
    run, folder = made(family)
    prompts = ["Call me Ishmael. Some years ago", "In the"]
    ids = [run.tokenizer.encode(prompt).tolist() for prompt in prompts]
    generate = transformers.pipeline("text-generation", model=folder, tokenizer=folder)
    how = {"max_new_tokens": 8, "do_sample": False, "return_tensors": True, "batch_size": 2}
    for prompt, (found,) in zip(ids, generate(prompts, **how), strict=True):
        real = [token for token in found["generated_token_ids"] if token != 0]
        assert real == prompt + greedy(run, prompt, 8)
    encoded = generate.tokenizer(prompts[0], return_tensors="pt")
    assert_same_logprobs(generate.model(**encoded), logprobs(run, ids[0]))


@pytest.mark.parametrize("family", BOTH)
def test_span_filling(transformers, made, family):
    run, folder = made(family)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    encode = lambda part: run.tokenizer.encode(part).tolist()
    source = [*encode("Thank you"), ROWS - 1, *encode(" me to your party"), ROWS - 2, 1]
    encoded = theirs("Thank you <extra_id_0> me to your party <extra_id_1>", return_tensors="pt")
    assert encoded["input_ids"].tolist() == [source]
    found = model.generate(**encoded, max_new_tokens=8, do_sample=False)
    start = run.decoder_start_id
    expected = greedy(run, [start], 8, source)
    # BART's generation ends with the end in any case.
    assert found[0].tolist()[:8] == [start, *expected][:8]
    output = model(**encoded, decoder_input_ids=found)
    assert_same_logprobs(output, logprobs(run, found[0].tolist(), source))
