"""Fine-tuning through the face that users have: a config, another run's workdir, labelled files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import small_run
import tool_run
from labelled_files import RECORD, pretrained, request, write

from lmjax import objectives, runner
from lmjax.errors import UserError
from lmjax.train import metrics, workdir

FAMILY = {"encoder": "bert", "decoder": "gpt2", "encoder_decoder": "t5"}
MEASURES = {
    "sequence_classification": ["accuracy", "f1"],
    "token_classification": ["accuracy", "f1"],
    "span_extraction": ["exact_match", "f1"],
    "seq2seq": ["exact_match", "f1", "rougeL", "bleu", "chrf"],
    "completion": ["exact_match", "f1", "rougeL", "bleu", "chrf"],
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """family -> a run of its own objective."""
    folder, known = tmp_path_factory.mktemp("sources"), {}

    def of(family):
        if family not in known:
            known[family] = pretrained(folder, family)
        return known[family]

    return of


@pytest.fixture(scope="module")
def finetuned(sources, tmp_path_factory):
    """objective -> a run that nothing disturbed, and its files."""
    folder, known = tmp_path_factory.mktemp("finetuned"), {}

    def of(objective):
        if objective not in known:
            source = sources(FAMILY[objectives.OBJECTIVES[objective].ARCHITECTURE])
            files = write(folder, objective)
            assert runner.train(request(objective, folder / objective, source, files)) == 0
            known[objective] = folder / objective, files
        return known[objective]

    return of


def rows(folder, split=None):
    found = small_run.comparable(metrics.read(folder / "metrics.jsonl"))
    return [row for row in found if split in (None, row["split"])]


def parameters(folder, step=8):
    return small_run.parameters(folder / "checkpoints" / str(step))


def test_there_is_a_config_and_examples_for_each():
    assert set(RECORD) == set(MEASURES) == set(objectives.LABELLED)


@pytest.mark.parametrize("objective", MEASURES)
def test_a_run_measures_its_answers_and_keeps_them(objective, finetuned):
    folder, _files = finetuned(objective)
    assert [row["step"] for row in rows(folder, "train")] == [2, 4, 6, 8]
    held_out = rows(folder, "eval")
    assert [row["step"] for row in held_out] == [4, 8]
    for row in held_out:
        measured = [name for name in row if f"{name}_low" in row]
        assert measured == MEASURES[objective]
        for name in measured:
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    answers = list(map(json.loads, (folder / "predictions.jsonl").read_text().splitlines()))
    assert [answer["line"] for answer in answers] == list(range(1, 17))
    predictions, references = zip(
        *((a["prediction"], a["reference"]) for a in answers), strict=True
    )
    config = workdir.read(folder).config
    for measure in objectives.measure(config, predictions, references):
        assert measure.value == pytest.approx(held_out[-1][measure.name])
    samples = list(metrics.read(folder / "samples.jsonl"))
    assert [(s["step"], s["index"]) for s in samples] == [(n, i) for n in (4, 8) for i in range(4)]
    shown = lambda value: value if isinstance(value, str) else json.dumps(value)
    for sample, answer in zip(samples[4:], answers[::4], strict=True):
        assert sample["prompt"]
        assert sample["text"] == shown(answer["prediction"])
        assert sample["reference"] == shown(answer["reference"])


@pytest.mark.parametrize("objective", ["token_classification", "seq2seq"])
def test_stopped_and_resumed_is_bit_for_bit(objective, finetuned, sources, tmp_path):
    whole, _files = finetuned(objective)
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    (tmp_path / "run" / "predictions.jsonl").unlink()
    assert runner.train(runner.Request(None, str(tmp_path / "run"))) == 0
    assert rows(tmp_path / "run") == rows(whole)
    small_run.assert_same_bits(parameters(tmp_path / "run"), parameters(whole))
    for name in ("predictions.jsonl", "samples.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


def test_the_trunk_starts_from_the_weights_and_the_head_anew(sources, tmp_path):
    source, files = sources("bert"), write(tmp_path, "sequence_classification")
    still = {"train.num_steps": 1, "optimizer.learning_rate": 1e-30}
    runs = {}
    for name, more in (("taken", {}), ("fresh", {"train.init_weights": False})):
        asked = request("sequence_classification", tmp_path / name, source, files, **still | more)
        assert runner.train(asked) == 0
        runs[name] = parameters(tmp_path / name, 1)
    theirs = parameters(Path(source), 2)
    for part in ("embed", "stack"):
        pairs = zip(
            jax.tree.leaves(runs["taken"][part]), jax.tree.leaves(theirs[part]), strict=True
        )
        assert all(np.allclose(mine, other, atol=1e-6) for mine, other in pairs)
    assert not np.allclose(runs["fresh"]["embed"]["token"], theirs["embed"]["token"])
    assert set(runs["taken"]) == {"classifier", "embed", "stack"}
    configs = [workdir.read(tmp_path / name).config for name in runs]
    assert configs[0].model == configs[1].model
    assert configs[0].model.hidden_size == 32
    assert configs[0].objective.labels == ("other", "prose")
    tokenizers = [(tmp_path / name / "tokenizer/tokenizer.model").read_bytes() for name in runs]
    assert tokenizers[0] == tokenizers[1]


def test_other_classes_get_another_head(finetuned, tmp_path):
    source, files = finetuned("sequence_classification")
    other = tmp_path / "other.jsonl"
    text = Path(files[0]).read_text().replace('"prose"', '"new"')
    other.write_text(text.replace('"other"', '"b"', 2))
    asked = request(
        "sequence_classification",
        tmp_path / "run",
        source,
        [str(other), files[1]],
        **{"data.eval_path": None, "data.eval_fraction": 0.2, "train.num_steps": 1},
    )
    assert runner.train(asked) == 0
    assert workdir.read(tmp_path / "run").config.objective.labels == ("b", "new", "other")


def test_it_learns(sources, tmp_path):
    """Words in upper case within a sentence: what a few steps on small batches can see."""
    files = write(tmp_path, "token_classification", train=400, test=60)
    settings = {
        "train.num_steps": 60,
        "train.global_batch_size": 16,
        "optimizer.learning_rate": 3e-3,
        "eval.every": 60,
        "checkpoint.every": 60,
        "model.dropout": 0.0,
        "data.seq_len": 64,
    }
    asked = request("token_classification", tmp_path / "run", sources("bert"), files, **settings)
    assert runner.train(asked) == 0
    row = rows(tmp_path / "run", "eval")[-1]
    assert row["loss"] < 0.7 * row["unigram_loss"]
    assert row["f1"] > 0.5


@pytest.mark.parametrize(
    ("objective", "family", "said"),
    [
        ("sequence_classification", "gpt2", "trains models of architecture 'encoder', family"),
        ("seq2seq", "bert", "'seq2seq' trains models of architecture 'encoder_decoder'"),
        ("completion", "t5", "'completion' trains models of architecture 'decoder'"),
    ],
)
def test_a_task_that_does_not_fit_the_variant(objective, family, said, sources, tmp_path):
    files = write(tmp_path, objective)
    with pytest.raises(UserError) as error:
        runner.train(request(objective, tmp_path / "run", sources(family), files))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_mistakes_in_files_are_one_line(sources, tmp_path):
    source, files = sources("bert"), write(tmp_path, "sequence_classification")

    def refusal(test_lines, **overrides):
        changed = tmp_path / "changed.jsonl"
        changed.write_text("".join(f"{json.dumps(line)}\n" for line in test_lines))
        asked = request(
            "sequence_classification",
            tmp_path / "run",
            source,
            [files[0], str(changed)],
            **overrides,
        )
        with pytest.raises(UserError) as error:
            runner.train(asked)
        assert "\n" not in str(error.value)
        return str(error.value)

    good = {"text": "a text", "label": "prose"}
    assert "changed.jsonl:2: label is 'verse', and the examples of training" in refusal(
        [good, {"text": "a", "label": "verse"}]
    )
    assert "changed.jsonl:1: text is empty" in refusal([{"text": "", "label": "prose"}])
    assert "changed.jsonl:1: too long" in refusal([{"text": "word " * 300, "label": "prose"}])
    assert "has no text, but the fields 'review', 'label'" in refusal(
        [{"review": "a", "label": "prose"}]
    )
    assert "data.fields names 'txt'" in refusal([good], **{"data.fields": (("txt", "review"),)})
    assert "evaluates on what it trains on" in refusal(
        [json.loads(line) for line in Path(files[0]).read_text().splitlines()]
    )


def test_without_a_model_to_start_from(tmp_path):
    files = write(tmp_path, "sequence_classification")
    asked = request("sequence_classification", tmp_path / "run", "", files)
    del asked.overrides["train.init_from"]
    with pytest.raises(UserError, match=r"needs a trained model.*; set train\.init_from"):
        runner.train(asked)
    asked.overrides["family"] = "bert"
    with pytest.raises(UserError, match=r"trains no tokenizer.*; set train\.init_from"):
        runner.train(asked)


def test_tools_that_want_tokens_say_so(finetuned, tmp_path):
    folder, _ = finetuned("sequence_classification")
    (tmp_path / "lines.jsonl").write_text('{"text": "a text"}\n')
    for tool, arguments in (
        ("score", [f"--input={tmp_path}/lines.jsonl", f"--output={tmp_path}/out.jsonl"]),
        ("fill_mask", ["--text=a <mask> text"]),
    ):
        done = tool_run.run(tool, f"--workdir={folder}", *arguments)
        assert done.code == 1
        assert "started from" in done.err


def test_answers_of_several_sources(sources, tmp_path):
    """Examples of two files, in shares: each measured with its own loss, all answers together."""
    files = write(tmp_path, "sequence_classification")
    parts = [Path(files[0]).read_text().splitlines(keepends=True)[k::2] for k in range(2)]
    for name, part in zip("ab", parts, strict=True):
        (tmp_path / f"{name}.jsonl").write_text("".join(part))
    pairs = tuple((name, f"{tmp_path}/{name}.jsonl") for name in "ab")
    asked = request(
        "sequence_classification",
        tmp_path / "run",
        sources("bert"),
        files,
        **{"data.sources": pairs, "data.eval_path": None, "data.eval_fraction": 0.4},
    )
    del asked.overrides["data.path"]
    assert runner.train(asked) == 0
    row = rows(tmp_path / "run", "eval")[-1]
    assert {"loss/a", "loss/b", "accuracy_low"} <= row.keys()
    answers = (tmp_path / "run/predictions.jsonl").read_text().splitlines()
    assert len(answers) == row["tokens/a"] + row["tokens/b"]
    assert {json.loads(answer)["file"] for answer in answers} == {"a.jsonl", "b.jsonl"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("objective", ["sequence_classification", "completion"])
def test_killed_and_still_bit_for_bit(objective, sources, tmp_path):
    """The real process, killed by SIGKILL behind a checkpoint, and started again."""
    source = sources(FAMILY[objectives.OBJECTIVES[objective].ARCHITECTURE])
    asked = request(objective, tmp_path, source, write(tmp_path, objective))
    overrides = asked.overrides | {"train.num_steps": 24, "eval.every": 8}

    def start(workdir):
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "lmjax.main"),
                f"--config={asked.config_file}",
                f"--workdir={workdir}",
                *(f"--config.{name}={value}" for name, value in overrides.items()),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ
            | {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")},
        )

    def end(process):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output

    end(start(tmp_path / "whole"))
    for behind in (4, 12):
        process = start(tmp_path / "killed")
        checkpoint = tmp_path / "killed" / "checkpoints" / str(behind)
        while not (
            checkpoint.exists()
            and any(row["step"] > behind for row in metrics.read(tmp_path / "killed/metrics.jsonl"))
        ):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.001)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "killed/checkpoints/24").exists()
    end(start(tmp_path / "killed"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert rows(killed) == rows(whole)
    small_run.assert_same_bits(parameters(killed, 24), parameters(whole, 24))
    answers = "predictions.jsonl"
    assert (killed / answers).read_bytes() == (whole / answers).read_bytes()
    log = (killed / "lmjax.log").read_text()
    assert log.count("going on from step") == 2


@pytest.mark.parametrize("objective", ["seq2seq", "completion"])
def test_what_was_learned_is_written_by_the_tool(objective, finetuned, tmp_path):
    """The answers of the newest evaluation, once more, prompt by prompt."""
    folder, files = finetuned(objective)
    records = [json.loads(line) for line in Path(files[1]).read_text().splitlines()]
    key = {"seq2seq": "source", "completion": "prompt"}[objective]
    (tmp_path / "prompts.jsonl").write_text(
        "".join(f"{json.dumps({'prompt': record[key]})}\n" for record in records)
    )
    lines = (f"--input={tmp_path}/prompts.jsonl", f"--output={tmp_path}/written.jsonl")
    done = tool_run.run("generate", f"--workdir={folder}", *lines, "--max_new_tokens=24")
    assert done.code == 0, done.err
    lines = [
        [json.loads(line) for line in file.read_text().splitlines()]
        for file in (tmp_path / "written.jsonl", folder / "predictions.jsonl")
    ]
    written = [line["completion"].strip() for line in lines[0]]
    assert written == [line["prediction"] for line in lines[1]]
