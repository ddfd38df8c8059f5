"""Paired comparisons of fine-tuned runs, and the baselines beside them."""

import json

import numpy as np
import pytest
import tool_run

from lmjax import fields as fields_lib
from lmjax.bench import baselines, compare
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.train import workdir

LABELS = ["neg", "pos"]


def make_run(folder, predictions, references, **fields):
    """A workdir with answers, as fine-tuning leaves it behind."""
    folder.mkdir()
    changes = {"objective.name": "sequence_classification", "model.architecture": "encoder"}
    config = fields_lib.replace(Config(), changes | {"model.head": "pooled"} | fields)
    workdir.write(folder, workdir.RunConfig(config, None))
    lines = [
        {"file": "t.jsonl", "line": i + 1, "prediction": said, "reference": right}
        for i, (said, right) in enumerate(zip(predictions, references, strict=True))
    ]
    (folder / "predictions.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    return str(folder)


def answers(seed, share, right):
    """Right ones, but for a share of wrong ones."""
    wrong = np.random.default_rng(seed).random(len(right)) >= share
    return [LABELS[1 - LABELS.index(r)] if w else r for r, w in zip(right, wrong, strict=True)]


@pytest.fixture
def groups(tmp_path):
    right = [LABELS[i % 2] for i in range(300)]
    said = lambda share, seed: answers(int(100 * share) + seed, share, right)
    return {
        name: [make_run(tmp_path / f"{name}{seed}", said(share, seed), right) for seed in range(3)]
        for name, share in (("good", 0.9), ("fair", 0.7), ("alike", 0.89))
    }


def read(groups):
    return {name: [compare.read(path) for path in paths] for name, paths in groups.items()}


def test_a_lead_has_the_interval_of_pairs(groups):
    found = compare.lines(read(groups))
    by_group = {line.group: line for line in found if line.measure == "accuracy"}
    assert by_group["good"].lead is None
    lead, low, high = by_group["fair"].lead
    assert lead == pytest.approx(by_group["good"].mean - by_group["fair"].mean)
    assert 0 < low < lead < high
    _, low, high = by_group["alike"].lead
    assert low < 0 < high
    for line in by_group.values():
        assert len(line.values) == 3
        assert line.low < line.mean < line.high


def test_the_interval_is_that_of_a_plain_paired_bootstrap(groups):
    runs = read(groups)
    found = compare.lines(runs)
    line = next(x for x in found if (x.group, x.measure) == ("fair", "accuracy"))
    right = {
        name: np.mean(
            [[p == r for p, r in zip(a.predictions, a.references, strict=True)] for a in of_group],
            axis=0,
        )
        for name, of_group in runs.items()
    }
    rng, leads = np.random.default_rng(1), []
    for _ in range(4000):
        items = rng.integers(0, 300, 300)
        leads.append(right["good"][items].mean() - right["fair"][items].mean())
    assert line.lead[1:] == pytest.approx(np.percentile(leads, (2.5, 97.5)), abs=0.01)


def test_other_examples_do_not_compare(groups, tmp_path):
    other = compare.read(make_run(tmp_path / "other", ["pos"] * 300, ["pos"] * 300))
    with pytest.raises(UserError, match="answered different examples"):
        compare.lines({**read(groups), "other": [other]})
    (tmp_path / "other/predictions.jsonl").unlink()
    with pytest.raises(UserError, match=r"has no predictions\.jsonl; fine-tune there first"):
        compare.read(str(tmp_path / "other"))


def test_the_tool_prints_a_table_and_writes_all_numbers(groups, tmp_path):
    arguments = [f"--runs={name}={','.join(paths)}" for name, paths in groups.items()]
    output = f"--output={tmp_path}/found.json"
    done = tool_run.run("compare", *arguments, "--nobaselines", output)
    assert done.code == 0, done.err
    head, _, *rows = done.out.splitlines()
    assert head == "|  | accuracy | lead over it | f1 | lead over it |"
    assert [row.split(" | ")[0] for row in rows] == ["| good", "| fair", "| alike"]
    assert "not beyond chance" in rows[2]
    assert "not beyond chance" not in rows[1]
    found = json.loads((tmp_path / "found.json").read_text())
    assert {line["group"] for line in found} == set(groups)
    wrong = tool_run.run("compare", "--runs=nothing")
    assert "write NAME=DIR,DIR" in wrong.err


def test_the_tool_prints_the_measures_that_are_asked_for(groups):
    arguments = [f"--runs={name}={','.join(paths)}" for name, paths in groups.items()]
    done = tool_run.run("compare", *arguments, "--nobaselines", "--measures=f1")
    assert done.out.startswith("|  | f1 | lead over it |\n"), done.err
    wrong = tool_run.run("compare", *arguments, "--nobaselines", "--measures=bleu")
    assert wrong.code != 0
    assert "--measures=bleu: these runs have accuracy, f1" in wrong.err


def test_tfidf_learns_words():
    texts = ["good fine", "bad poor", "fine day", "poor show"] * 5
    train = [{"text": t, "label": LABELS[i % 2 == 0]} for i, t in enumerate(texts)]
    test = [{"text": "a fine one"}, {"text": "so poor"}]
    assert baselines.tfidf(train, test) == ["pos", "neg"]


def test_tags_of_words_and_of_strangers():
    train = [
        {"tokens": ["Oslo", "is", "cold"], "tags": ["B-place", "O", "O"]},
        {"tokens": ["Oslo", "is"], "tags": ["B-place", "O"]},
    ]
    test = [{"tokens": ["in", "Oslo"], "tags": ["O", "O"]}]
    assert baselines.most_frequent_tag(train, test) == [["O", "B-place"]]


def test_sentences():
    test = [{"source": "One is here. Two is there."}]
    assert baselines.first_sentence([], test) == ["One is here."]
    assert baselines.copy([], test) == ["One is here. Two is there."]
    asked = [{"question": "What is the capital?", "context": "Area: small. Capital: Oslo. Big."}]
    assert baselines.closest_sentence([], asked) == ["Capital: Oslo."]
