"""The matched comparison: is it matched, what its page says, and all of it in a minute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_run
import tool_run
from scipy import stats

from lmjax import cli, config_file, flops
from lmjax.bench import (
    forms,
    intervals,
    jobs,
    matched,
    matched_page,
    matched_pictures,
    matched_results,
)
from lmjax.errors import UserError
from lmjax.objectives import measures
from lmjax.train import setup, workdir

ROOT = Path(__file__).parents[2]
FAMILY = {"encoder": "bert", "decoder": "gpt2", "encoder_decoder": "t5"}
QUESTION = {
    "question": "What does it drink?",
    "context": " ".join(f"w{i}" for i in range(150)) + " It drinks cold tea. " + "and so on " * 50,
    "answers": {"text": ["cold tea"], "answer_start": [0]},
}
QUESTION["answers"]["answer_start"] = [QUESTION["context"].index("cold tea")]
EXAMPLES = {
    "sentiment": {"text": "A good film.", "label": "pos"},
    "questions": QUESTION,
    "entities": {"tokens": ["in", "Oslo"], "tags": ["O", "B-place"]},
    "summaries": {"document": "Oslo is a city. " * 40, "summary": "capital of Norway"},
    "translation": {"source": "It rains.", "target": "Llueve."},
}


def labelled(folder, number=30):
    folder.mkdir()
    for task, example in EXAMPLES.items():
        for part in ("train", "test"):
            lines = [json.dumps(example)] * (number + (part == "test"))
            if task == "sentiment":
                lines[0] = json.dumps({"text": "Bad.", "label": "neg"})
            (folder / f"{task}.{part}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def plan(tmp_path):
    return matched.Plan(tmp_path / "run", "text.jsonl", "held.jsonl", labelled(tmp_path / "tasks"))


def config_of(job, **more):
    """The config that a job's command line asks for."""
    given = dict(a.split("=", 1) for a in job.command if a.startswith("--"))
    overrides = cli.parse_overrides([a for a in job.command if a.startswith("--config.")])
    return config_file.make(config_file.load(str(ROOT / given["--config"])) | more, overrides)


@pytest.mark.parametrize("size", matched.SIZES)
def test_variants_are_equal_in_size_and_read_the_same_windows(plan, size):
    jobs = [job for job in plan.jobs() if job.kind == f"pretrain_{size}"]
    configs = [setup.resolve(config_of(job), plan.vocab_size) for job in jobs]
    assert {c.model.architecture for c in configs} == {"encoder", "decoder", "encoder_decoder"}
    assert {c.model.vocab_size for c in configs} == {matched.VOCAB_SIZE}
    beside = [
        sum(flops.num_params(c.model).values()) - c.model.vocab_size * c.model.hidden_size
        for c in configs
    ]
    assert max(beside) < 1.05 * min(beside)
    windows = [c.data.seq_len - 2 * (c.objective.name != "clm") for c in configs]
    assert len(set(windows)) == 1
    recipes = {(c.train.num_steps, c.train.global_batch_size, c.data.packing) for c in configs}
    assert len(recipes) == 1


def test_every_job_is_a_command_that_means_something(plan):
    jobs = plan.jobs()
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    assert all(set(job.needs) <= set(names[:i]) for i, job in enumerate(jobs))
    for job in jobs:
        if job.kind.startswith("finetune_"):
            variant = job.name.partition("/")[2].rpartition("_")[0]
            config = config_of(job, family=FAMILY[variant])
            assert (
                config.train.init_from
                == str(plan.pretrained("mini", variant, 0))[:-1] + (job.name[-1])
            )
    kinds = [job.kind for job in jobs if "/" in job.name]
    assert kinds.count("pretrain_mini") == 9
    assert kinds.count("pretrain_small") == 3
    assert kinds.count("finetune_questions") == 9
    assert kinds.count("finetune_entities") == 3


def test_examples_in_every_form(plan):
    counts = plan.prepare()
    assert counts["sentiment"] == {"train": 30, "test": 31}
    for task in plan.tasks():
        for objective in matched.TASKS[task].objectives.values():
            line = json.loads(plan.lines(task, objective, "test").read_text().splitlines()[-1])
            if objective == "completion":
                assert line["prompt"].endswith(":")
                assert line["completion"].startswith(" ")
            elif objective == "seq2seq":
                assert line.keys() == {"source", "target"}
    long = {"source": "word " * 21, "target": "y"}
    assert list(forms.kept("translation", [long, EXAMPLES["translation"]])) == [
        EXAMPLES["translation"]
    ]


def test_a_passage_holds_its_answer_anywhere():
    places = []
    for number in range(40):
        made = forms.passage(QUESTION | {"question": str(number)})
        start = made["answers"]["answer_start"][0]
        assert made["context"][start:].startswith("cold tea")
        assert len(made["context"].split(" ")) == 70
        places.append(start / len(made["context"]))
    assert min(places) < 0.2
    assert max(places) > 0.8
    assert forms.passage(QUESTION) == forms.passage(QUESTION)


def test_a_file_without_its_fields_is_refused(plan):
    plan.examples("summaries", "train").write_text('{"document": "x"}\n')
    with pytest.raises(UserError, match="an example of summaries without 'summary'"):
        plan.prepare()
    plan.examples("sentiment", "train").write_text("")
    with pytest.raises(UserError, match="has no examples for sentiment"):
        plan.prepare()


def test_an_interval_of_seeds_alone_is_students():
    values = [1.0, 1.2, 1.1]
    found = intervals.of_mean(values)
    ends = stats.t.interval(0.95, 2, np.mean(values), np.std(values, ddof=1) / np.sqrt(3))
    assert (found.low, found.high) == pytest.approx(ends)
    welch = stats.ttest_ind(values, [1.4, 1.7, 1.5], equal_var=False).confidence_interval()
    lead = intervals.of_lead(values, [1.4, 1.7, 1.5])
    assert (lead.low, lead.high) == pytest.approx((welch.low, welch.high))
    assert not np.isfinite(intervals.of_mean([1.0]).low)


def test_an_interval_of_examples_alone_is_the_bootstraps():
    right_N = np.random.default_rng(0).random(400) < 0.7
    measure = measures.mean("accuracy", right_N)
    resampled_R = measure.resampled(measures.draws(400))
    found = intervals.of_mean([measure.value], resampled_R)
    assert (found.low, found.high) == pytest.approx(measure.interval(), abs=0.01)
    # Seeds that differ make it wider.
    apart = intervals.of_mean([measure.value - 0.1, measure.value + 0.1], resampled_R)
    assert apart.low < found.low
    assert apart.high > found.high


def test_a_power_law_is_found_again():
    sizes = np.array([2e5, 8e5, 2e6])
    law = intervals.power_law(sizes, 9 * sizes**-0.07)
    assert law.exponent.value == pytest.approx(0.07)
    assert law(sizes) == pytest.approx(9 * sizes**-0.07)
    assert intervals.power_law([1, 1, 1], [2, 3, 4]) is None


def leave_behind(plan, runner):
    """Files as the jobs would leave them: the decoder finds every answer, the encoder half."""
    for job in plan.jobs():
        log = runner.log(job.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.with_suffix(".json").write_text(json.dumps({"key": "", "code": 0, "seconds": 2.0}))
        kind, _, rest = job.name.partition("/")
        variant, seed = rest[:-2], int(rest[-1:] or 0)
        if kind.startswith("pretrain_"):
            config = setup.resolve(config_of(job), plan.vocab_size)
            folder = plan.pretrained(kind.partition("_")[2], variant, seed)
            bits = {"bits_per_byte": 2.0} if variant == "decoder" else {}
            row = {"step": 1500, "split": "eval", "content_loss": 4.5, "content_unigram_loss": 7.0}
            lines = [row | bits]
        elif kind in ("finetune_questions", "finetune_entities"):
            config = config_of(job, family=FAMILY[variant])
            folder = plan.finetuned(kind.partition("_")[2], variant, seed)
            right = ["cold tea"] if variant == "encoder" else "cold tea"
            said = ["cold tea", "" if variant == "encoder" else "the cold tea!"]
            lines = [{"prediction": x, "reference": right} for x in said * 10]
            if kind == "finetune_entities":
                tags = ["O", "B-place"]
                lines = [{"prediction": tags, "reference": tags}] * 5
        else:
            if kind == "choose":
                right = [{"right": {"per_byte": n < 30 + seed}} for n in range(100)]
                tasks = {"all": {"chance": 0.25, "accuracy": {}}}
                found = json.dumps({"tasks": tasks, "items": right})
                plan.chosen(variant, seed).write_text(found)
            continue
        folder.mkdir(parents=True)
        workdir.write(folder, workdir.RunConfig(config, None))
        name = "metrics" if kind.startswith("pretrain_") else "predictions"
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_numbers_come_from_what_the_runs_left(plan, monkeypatch):
    for task in ("sentiment", "summaries", "translation"):
        plan.examples(task, "train").unlink()
    counts, runner = plan.prepare(), jobs.Runner(plan.workdir / "jobs")
    leave_behind(plan, runner)
    monkeypatch.setattr(matched_results.compare, "baselines", lambda run: {})
    found = matched_results.collect(plan, counts, runner)
    assert len(found["pretrained"]) == 15
    for run in found["pretrained"]:
        assert run["flops"] > 6 * run["non_embedding"] * run["tokens"] / 2
    tokens = {run["tokens"] for run in found["pretrained"]}
    assert tokens == {1500 * 8 * 126}
    rows = {(row["task"], row["measure"]): row for row in found["rows"]}
    chosen = rows["choices", "accuracy, %"]["of"]["decoder"]
    assert chosen["values"] == [30.0, 31.0, 32.0]
    assert chosen["low"] < 31 < chosen["high"]
    # Whatever form an answer comes in, it is judged the same way.
    match = rows["questions", "exact_match"]
    assert {variant: one["value"] for variant, one in match["of"].items()} == {
        "encoder": 50.0,
        "decoder": 100.0,
        "encoder_decoder": 100.0,
    }
    assert match["leads"]["encoder"]["value"] == 50
    assert rows["entities", "f1"]["of"]["encoder"]["value"] == 100
    assert str(plan.workdir) not in json.dumps(found)
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(UserError, match="has no pre-training that is done"):
        matched_results.collect(plan, counts, jobs.Runner(plan.workdir / "other"))


def numbers():
    """Of a small comparison: the encoder wins one task beyond chance, the decoder none."""
    runs = [
        {
            "size": size,
            "variant": variant,
            "seed": seed,
            "parameters": 1000 + n,
            "non_embedding": n + place,
            "width": 8,
            "tokens": 5000,
            "steps": 10,
            "learning_rate": 0.001,
            "optimizer": "adamw",
            "objective": "clm",
            "seconds": 61.0,
            "flops": 2.5e12,
            "content_loss": 5 - n / 1000 + seed / 100,
            "content_unigram_loss": 6.5,
            "bits_per_byte": 2.0 + seed / 10 if variant == "decoder" else None,
            "curve": [[2500, 6.0], [5000, 5.0]],
        }
        for size, n in (("tiny", 500), ("mini", 1000))
        for place, variant in enumerate(matched.VARIANTS)
        for seed in ((0, 1, 2) if size == "mini" else (0,))
    ]
    of = lambda value: {"values": [value] * 3, "value": value, "low": value - 1, "high": value + 1}
    lead = lambda value, by: {"value": value, "low": value - by, "high": value + by}
    rows = [
        {
            "task": "sentiment",
            "measure": "accuracy",
            "of": {"encoder": of(70.0), "decoder": of(60.0), "encoder_decoder": of(65.0)},
            "best": "encoder",
            "leads": {"decoder": lead(10.0, 2), "encoder_decoder": lead(5.0, 2)},
            "plain": {"name": "TF-IDF", "value": 68.0},
        },
        {
            "task": "summaries",
            "measure": "rougeL",
            "of": {"decoder": of(20.0), "encoder_decoder": of(21.0)},
            "best": "encoder_decoder",
            "leads": {"decoder": lead(1.0, 2)},
            "plain": None,
        },
    ]
    return {
        "main": "mini",
        "seeds": [0, 1, 2],
        "vocab_size": 4096,
        "examples": {"sentiment": {"train": 9000, "test": 1000}},
        "missing": {"summaries": "an encoder does not write"},
        "pretrained": runs,
        "rows": rows,
        "seconds": 100.0,
        "commands": ["python -m lmjax.main"],
        "date": "2026-01-01",
        "machine": "2 cores",
        "versions": {"jax": "1"},
    }


def test_the_page_says_who_wins_and_who_loses():
    text = matched_page.markdown(numbers(), [("images/x.svg", "what it shows")])
    cells = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "|" in line}
    row = cells["sentiment, accuracy, %"]
    assert "| **70.0 (69.0 to 71.0)** | 60.0 (59.0 to 61.0) |" in row
    assert "68.0 (TF-IDF)" in row
    assert "**" not in cells["summaries, ROUGE-L"]  # a lead that may be chance
    assert cells["summaries, ROUGE-L"].split(" | ")[1] == "—"
    assert cells["bits per byte"].count("—") == 2
    assert "summaries: an encoder does not write" in text
    assert "with 3 seeds each" in text
    assert cells["FLOPs of the model"].count("2.5T") == 3
    (decoder,) = (line for line in text.splitlines() if "Where the decoder loses" in line)
    assert "sentiment, accuracy, %: by 10.0 (8.0 to 12.0) to the encoder" in decoder
    assert "not beyond chance" in decoder
    assert "Where the encoder loses" not in text
    assert "below what needs no network (TF-IDF)" in decoder
    assert "![what it shows](images/x.svg)" in text


def test_the_section_takes_the_place_of_the_old_one(tmp_path):
    file = tmp_path / "page.md"
    old = f"# Results\n\n{matched_page.BEGIN}\nold\n{matched_page.END}\n\n## Below\n"
    file.write_text(old)
    for _ in range(2):
        matched_page.write(numbers(), file, [])
    text = file.read_text()
    assert text.startswith("# Results\n\n")
    assert text.endswith("\n\n## Below\n")
    assert "\nold\n" not in text
    assert text.count(matched_page.BEGIN) == 1


def test_the_page_is_made_again_from_its_numbers(tmp_path):
    page = tmp_path / "page.md"
    missing = tool_run.run("compare", "--matched", f"--output={page}")
    assert "page.json is not there; run the comparison first" in missing.err
    page.with_suffix(".json").write_text(json.dumps(numbers()))
    done = tool_run.run("compare", "--matched", f"--output={page}")
    assert done.code == 0, done.err
    assert "**70.0 (69.0 to 71.0)**" in page.read_text()
    for file in (tmp_path / "images").iterdir():
        assert file.read_text().rstrip().endswith("</svg>")
        assert f"images/{file.name}" in page.read_text()
    assert len(list((tmp_path / "images").iterdir())) == len(matched_pictures.PICTURES)
    both = tool_run.run("compare", "--matched", "--runs=a=b", f"--output={page}")
    assert "give either --runs=NAME=DIR,DIR or --matched" in both.err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_of_it_in_a_few_steps(tmp_path):
    """One task, one seed, the smallest size; the second call runs nothing."""
    lines = small_run.CORPUS.read_text().splitlines(keepends=True)
    (tmp_path / "text.jsonl").write_text("".join(lines[:60]))
    (tmp_path / "held.jsonl").write_text("".join(lines[60:80]))
    tasks = labelled(tmp_path / "tasks", number=12)
    for task in EXAMPLES.keys() - {"entities"}:
        (tasks / f"{task}.train.jsonl").unlink()
    arguments = [
        "--matched",
        f"--data={tmp_path}/text.jsonl",
        f"--held_out={tmp_path}/held.jsonl",
        f"--labelled={tasks}",
        f"--workdir={tmp_path}/runs",
        f"--output={tmp_path}/page.md",
    ]
    arguments += [
        "--seeds=0",
        "--main=tiny",
        "--sizes=tiny",
        "--steps=3",
        "--shorten=0.005",
        "--choices=8",
    ]
    command = [sys.executable, "tools/compare.py", *arguments, "--vocab_size=600", "--jobs=2"]
    quick = "--xla_backend_optimization_level=1"  # compiles quicker
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": quick}
    first, second = (
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        for _ in range(2)
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert second.stdout.startswith("11 of 11 jobs are done already"), second.stdout
    found = json.loads((tmp_path / "page.json").read_text())
    measured = {(row["task"], row["measure"]): set(row["of"]) for row in found["rows"]}
    assert measured[("choices", "accuracy, %")] == set(matched.VARIANTS)
    assert measured[("entities", "f1")] == {"encoder"}
    assert {run["variant"] for run in found["pretrained"]} == set(matched.VARIANTS)
    assert str(tmp_path) not in json.dumps(found["commands"])
    assert "which text goes on?" in (tmp_path / "page.md").read_text()
