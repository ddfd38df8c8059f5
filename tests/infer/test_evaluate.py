"""Choices by log-likelihood, of every kind of model, against one choice at a time; their summaries;
and the same by transformers."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import published
import pytest
import small_run
import stock_classes
import tool_run

from lmjax.data import files, prepare, store, tokenizer_training
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.errors import UserError
from lmjax.infer import choice, evaluate
from lmjax.infer.choice import ChoiceFraming
from lmjax.infer.score import Scorer
from lmjax.train import checkpoint, trained, unigram

LINES = [
    {"context": "She had been a", "choices": ["friend and companion", "of"], "answer": 0},
    {"context": "Call me ", "choices": ["Ishmael", "1,000"], "answer": "Ishmael", "id": 7},
    {"context": "", "choices": ["In the", " the in"], "answer": 0, "task": "order"},
    {"context": "the <blank> of times.", "choices": ["best", "whale"], "answer": 1},
]
MODELS = {
    "gpt2": "clm",
    "bert": "mlm",
    "t5": "span_corruption",
    "bart": "denoising",
    "prefix_lm": "prefix_lm",
    "ul2": "ul2",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """name -> workdir of a model with random weights."""
    root = tmp_path_factory.mktemp("runs")
    size = {"vocab_size": 368, "model_type": "bpe", "sample_bytes": 50_000}
    tokenizer_training.train(files.find_files("bundled:corpus_small"), root, **size)
    tokenizer = tokenizer_lib.load(root)
    for name, objective in MODELS.items():
        family = name if name in ("gpt2", "bert", "bart") else "t5"
        longest = {} if family == "t5" else {"max_positions": 48}
        published.make_run(root / name, family, tokenizer, objective=objective, **longest)
    return root


@functools.cache
def load(workdir):
    return trained.load(str(workdir), devices=jax.devices()[:1])


def framing(model):
    return ChoiceFraming(
        model.framing,
        model.description,
        trained.special_ids(model.config, model.tokenizer)["bos"],
        trained.sentinel_ids(model.config, model.tokenizer),
    )


def results(workdir, lines, folder, table=None):
    model = load(workdir)
    (folder / "tasks.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    scorer = Scorer(model.model, model.params, model.batch_sharding, batch_tokens=256)
    with model.context():
        path = str(folder / "tasks.jsonl")
        return list(evaluate.evaluate([path], framing(model), scorer, unigram=table))


def texts(line):
    """(before, choice with the space in front, behind) of each choice, written out by hand."""
    before, *behind = line["context"].split("<blank>")
    for text in line["choices"]:
        space = before[len(before.rstrip()) :]
        if not behind and before and not space and text[0] != " ":
            space = " "
        yield before.rstrip(), space + text, "".join(behind)


def reference(model, logprobs, before, text, behind):
    """Sum of log p by the definition of each objective, one text at a time, and tokens."""
    encode = lambda text: model.tokenizer.encode(text).tolist()
    objective = model.config.objective.name
    sentinel = model.model.vocab_size - 1
    start = len(encode(before))
    if objective == "clm":
        ids = encode(before + text + behind)
        ids, start = (ids, start) if start else ([1, *ids], 1)
        table = logprobs(ids)
        return [table[t - 1, ids[t]] for t in range(start, len(ids))]
    if objective == "mlm":
        stop = len(encode(before + text))
        ids = [3, *encode(before + text + behind), 1]
        scores = []
        for t in range(start + 1, stop + 1):
            masked = [*ids[:t], 4, *ids[t + 1 :]]
            scores.append(logprobs(masked)[t, ids[t]])
        return scores
    modes = {"ul2": [sentinel - 128 if behind else sentinel - 129]}.get(objective, [])
    if objective == "denoising":
        source, target = [3, *encode(before), 4, *encode(behind), 1], [3, *encode(before + text)]
        first = 1 + start
    elif objective == "prefix_lm" or (objective == "ul2" and not behind):
        source, target, first = [*modes, *encode(before), 1], encode(text + behind), 0
    else:
        ends = [sentinel - 1] * bool(behind)
        source = [*modes, *encode(before), sentinel, *encode(behind), *ends, 1]
        target, first = [sentinel, *encode(text), *ends], 1
    table = logprobs([model.decoder_start_id, *target[:-1]], source)
    return [table[t, target[t]] for t in range(first, len(target))]


def assert_scores(model, found, lines, logprobs):
    for result, line in zip(found, lines, strict=True):
        expected = [reference(model, logprobs, *parts) for parts in texts(line)]
        sums = [sum(scores) for scores in expected]
        np.testing.assert_allclose(result.scores["plain"], sums, rtol=0, atol=1e-4)
        sizes = [len(text.strip().encode()) for text in line["choices"]]
        behind = line["context"].split("<blank>")[1:]
        if behind and model.config.objective.name in ("clm", "prefix_lm"):
            sizes = [size + len(behind[0].encode()) for size in sizes]
        for way, counts in (("per_byte", sizes), ("per_token", map(len, expected))):
            means = [total / count for total, count in zip(sums, counts, strict=True)]
            np.testing.assert_allclose(result.scores[way], means, rtol=0, atol=1e-4)


SLOW = ("t5", "prefix_lm", "bart", "bert")  # UL2 has the gaps of T5 and prefix LM


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in MODELS]
)
def test_scores_are_those_of_one_choice_at_a_time(runs, name, tmp_path):
    model = load(runs / name)
    logprobs = functools.partial(stock_classes.logprobs, model)
    found = results(runs / name, LINES, tmp_path)
    assert_scores(model, found, LINES, logprobs)
    assert [result.answer for result in found] == [0, 0, 0, 1]
    assert found[1].id == 7
    assert found[0].id.endswith("tasks.jsonl:1")
    for result in found:
        for way, scores in result.scores.items():
            assert result.picked[way] == np.argmax(scores)
            assert result.right[way] == (result.picked[way] == result.answer)


def test_a_unigram_model_beside_it(runs, tmp_path):
    model = load(runs / "t5")
    table = np.log(np.arange(1, 369) / 1000)
    for result, line in zip(results(runs / "t5", LINES, tmp_path, table), LINES, strict=True):
        ids = [model.tokenizer.encode(text) for _, text, _ in texts(line)]
        expected = [table[i].sum() for i in ids]
        np.testing.assert_allclose(result.scores["unigram"], expected)


def test_accuracies():
    made = [
        evaluate.Result(i, task, 0, {"plain": [0.0] * count}, {"plain": 0}, {"plain": right})
        for i, (task, count, right) in enumerate([("a", 2, True)] * 30 + [("b", 4, False)] * 10)
    ]
    of_a, of_b, of_all = evaluate.summaries(made)
    assert (of_a.task, of_a.num_items, of_a.chance) == ("a", 30, 0.5)
    assert of_a.accuracy["plain"] == evaluate.Accuracy(1.0, 1.0, 1.0)
    assert of_b.accuracy["plain"] == evaluate.Accuracy(0.0, 0.0, 0.0)
    assert (of_all.task, of_all.num_items, of_all.chance) == ("all", 40, 0.4375)
    found = of_all.accuracy["plain"]
    rng, right = np.random.default_rng(1), np.arange(40) < 30
    drawn = right[rng.integers(40, size=(4000, 40))].mean(axis=1)
    assert [found.low, found.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.026)
    assert found == evaluate.summaries(made)[-1].accuracy["plain"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": None}, "context is None, not text"),
        ({"choices": ["one"]}, "no list of two texts"),
        ({"choices": "abc"}, "no list of two texts"),
        ({"choices": ["a", 5]}, r"choices\[1\] is 5, not text"),
        ({"choices": ["a", " "]}, r"choices\[1\] is empty"),
        ({"answer": 2}, "answer is 2, and there are 2 choices; give an index"),
        ({"answer": -1}, "answer is -1"),
        ({"answer": True}, "answer is True"),
        ({"answer": "none"}, "answer is 'none', which is 0 of the choices"),
        ({"context": "<blank> and <blank>"}, "has 2 <blank>; leave one"),
        ({"task": 5}, "task is 5, not text"),
        ({"context": "again " * 60}, r"choices\[0\] takes .* the model has 48"),
    ],
)
def test_what_is_refused_of_a_line(runs, change, message):
    line = {"context": "a", "choices": ["b", "c"], "answer": 0} | change
    with pytest.raises(UserError, match=message):
        framing(load(runs / "gpt2"))(choice.item(line))


@pytest.mark.parametrize("name", ["context", "choices", "answer"])
def test_fields_that_are_missing(name):
    line = {"context": "a", "choices": ["b", "c"], "answer": 0}
    del line[name]
    with pytest.raises(UserError, match=f"has no field {name}; a line has context, choices and"):
        choice.item(line)


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.jsonl"
    file.write_text("".join(small_run.CORPUS.read_text().splitlines(keepends=True)[:30]))
    return file


def test_the_tools(runs, text, tmp_path):
    """From documents to a table of choices to results."""
    flags = [f"--input={text}", f"--output={tmp_path}/c.jsonl", "--num_items=8"]
    sizes = ["--context_words=4", "--choice_words=2", "--eval_fraction=0.1"]
    done = tool_run.run("make_choices", *flags, *sizes)
    assert done.out == f"{tmp_path}/c.jsonl: 8 lines of 4 choices\n"
    flags = [f"--workdir={runs}/gpt2", f"--tasks={tmp_path}/c.jsonl"]
    done = tool_run.run("evaluate", *flags, f"--output={tmp_path}/r.json", f"--unigram_text={text}")
    assert done.code == 0, done.err
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["model"] == {"family": "gpt2", "step": 0, "dtype": "float32"}
    task = written["tasks"]["lines"]
    assert (task["num_items"], task["chance"]) == (8, 0.25)
    for way in ("plain", "per_byte", "per_token", "unigram", "unigram_per_byte"):
        right = np.mean([item["right"][way] for item in written["items"]])
        assert task["accuracy"][way]["value"] == right
        assert way.replace("_", " ") in done.out
    done = tool_run.run("evaluate", *flags)
    assert "no unigram baseline: the run's tokens are not here; give --unigram_text" in done.out
    assert "unigram per byte" not in done.out


def test_the_unigram_model_of_a_run(runs, text, tmp_path, monkeypatch):
    config, _ = published.make_run(tmp_path / "run", "gpt2", load(runs / "gpt2").tokenizer)
    prepared = prepare.prepare([str(text)], tmp_path / "run/tokenizer", str(tmp_path / "store"))
    sha256 = store.read_manifest(tmp_path / "store")[1]
    shutil.rmtree(tmp_path / "run/checkpoints")
    model = load(runs / "gpt2")
    checkpoint.save_weights(
        f"{tmp_path}/run/checkpoints", jax.device_get(model.params), {"data_sha256": sha256}
    )
    monkeypatch.setattr(unigram, "_WINDOW", 64)
    data = config.data.model_copy(update={"path": str(tmp_path / "store")})
    model = dataclasses.replace(model, config=config.model_copy(update={"data": data}))
    table = unigram.of_run(f"{tmp_path}/run", model)
    assert np.exp(table).sum() == pytest.approx(1, abs=1e-4)
    tokens = store.Store.open(tmp_path / "store", "train").read([0], 2_000_000)[0]
    tokens = tokens[: prepared["splits"]["train"]["num_tokens"]]
    expected = np.bincount(tokens, minlength=len(table)) + 1
    np.testing.assert_allclose(np.exp(table), expected / expected.sum(), rtol=0.05)
    config = config.model_copy(update={"data": data.model_copy(update={"path": str(text)})})
    assert unigram.of_run(f"{tmp_path}/run", dataclasses.replace(model, config=config)) is None


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # 2026-11: of third-party imports (torch, transformers)
@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "bart"])
def test_transformers_gives_the_same_scores(runs, name, tmp_path):
    theirs = stock_classes.library()
    import torch

    published.export_folder(runs / name, tmp_path / "out")
    stock = {"gpt2": theirs.AutoModelForCausalLM, "bert": theirs.AutoModelForMaskedLM}
    kind = stock.get(name, theirs.AutoModelForSeq2SeqLM)
    model, ours = kind.from_pretrained(tmp_path / "out").eval(), load(runs / name)

    @torch.no_grad()
    def logprobs(ids, source=None):
        if source is None:
            logits = model(torch.tensor([ids])).logits
        else:
            logits = model(torch.tensor([source]), decoder_input_ids=torch.tensor([ids])).logits
        return logits[0].double().log_softmax(-1).numpy()

    assert_scores(ours, results(runs / name, LINES, tmp_path), LINES, logprobs)
