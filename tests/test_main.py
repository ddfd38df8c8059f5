"""The command line from end to end, on a real if small text."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import small_run
from small_run import CORPUS, OBJECTIVES

from lmjax import runner
from lmjax.errors import UserError
from lmjax.train import metrics


@pytest.fixture(scope="module")
def config_files(tmp_path_factory):
    """A config of each variant on the same text."""
    folder = tmp_path_factory.mktemp("main")
    return {family: small_run.config_file(folder, family) for family in OBJECTIVES}


@pytest.fixture(scope="module")
def config_file(config_files):
    return config_files["gpt2"]


@pytest.fixture(scope="module")
def finished(config_file, tmp_path_factory):
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert runner.train(runner.Request(config_file, str(workdir))) == 0
    return workdir


def rows(workdir):
    return small_run.comparable(metrics.read(workdir / "metrics.jsonl"))


def assert_same_run(workdir, other):
    assert rows(workdir) == rows(other)
    mine, theirs = (small_run.parameters(w / "checkpoints" / "24") for w in (workdir, other))
    small_run.assert_same_bits(mine, theirs)


def test_a_run_leaves_what_was_promised(finished):
    train = [r for r in rows(finished) if r["split"] == "train"]
    held_out = [r for r in rows(finished) if r["split"] == "eval"]
    assert [r["step"] for r in train] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert [r["step"] for r in held_out] == [8, 16, 24]
    assert train[0]["tokens"] == 3 * 8 * 32
    assert train[-1]["loss"] < train[0]["loss"] - 0.5
    fields = {"loss", "content_loss", "unigram_loss", "content_unigram_loss", "accuracy"}
    assert fields | {"bits_per_byte", "grad_norm", "learning_rate"} <= set(train[0])
    assert fields | {"bits_per_byte", "tokens"} <= set(held_out[0])
    # Close to the uniform distribution at first, and to the unigram baseline soon.
    assert abs(train[0]["loss"] - np.log(640)) < 1.0
    assert 3 < train[0]["unigram_loss"] < np.log(640)
    assert small_run.saved_steps(finished) == [20, 24]
    assert (finished / "tokenizer" / "tokenizer.model").exists()
    assert any((finished / "tensorboard").iterdir())
    assert "held-out loss" in (finished / "lmjax.log").read_text()
    stored = json.loads((finished / "config.json").read_text())["config"]
    assert stored["model"]["vocab_size"] == 640
    assert stored["schedule"]["decay_steps"] == 24


def test_a_preempted_run_goes_on_bit_for_bit(config_file, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = Path("runs/relative")
    request = runner.Request(config_file, str(workdir))

    def preempt():
        file = workdir / "metrics.jsonl"
        while not (file.exists() and len(file.read_bytes().splitlines()) >= 3):
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=preempt)
    thread.start()
    code = runner.train(request)
    thread.join()
    assert code == runner.PREEMPTED
    assert 7 <= small_run.saved_steps(workdir)[-1] < 24
    assert runner.train(request) == 0
    assert_same_run(workdir, finished)


def test_evaluation_alone_gives_the_last_row(finished, capsys):
    assert runner.evaluate(runner.Request(None, str(finished))) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row == rows(finished)[-1]


def test_a_longer_run_keeps_its_schedule(finished, tmp_path):
    import shutil

    workdir = tmp_path / "longer"
    shutil.copytree(finished, workdir)
    request = runner.Request(None, str(workdir), {"train.num_steps": 27})
    assert runner.train(request) == 0
    last = rows(workdir)[-2]
    assert (last["step"], last["split"]) == (27, "train")
    assert last["learning_rate"] == pytest.approx(1e-3)  # the floor of the first schedule
    changes = json.loads((workdir / "config.json").read_text())["changes"]
    assert changes == [{"field": "train.num_steps", "from": 24, "to": 27}]


def test_a_dry_run_touches_nothing(config_file, tmp_path, capsys):
    overrides = {"data.path": str(tmp_path / "not there"), "data.cache_dir": str(tmp_path / "c")}
    assert runner.dry_run(runner.Request(config_file, str(tmp_path / "run"), overrides)) == 0
    assert not list(tmp_path.iterdir())
    out = capsys.readouterr().out
    for part in ("embed/", "parameters", "expected", "config.train.num_steps", "optimizer"):
        assert part in out


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"data.path": "/no/such/text.jsonl"}, ["/no/such/text.jsonl", "no such file"]),
        ({"data.text_key": "body"}, ["'body'", "text"]),
        ({"family": "gpt3"}, ["gpt3", "gpt2"]),
        ({"model.preset": "smal"}, ["smal", "small"]),
        ({"objective.name": "mlm"}, ["'mlm'", "'encoder'", "'decoder'", "clm"]),
        ({"family": "t5"}, ["'clm'", "'encoder_decoder'", "span_corruption"]),
    ],
)
def test_mistakes_are_one_line(config_file, tmp_path, overrides, parts):
    with pytest.raises(UserError) as caught:
        runner.train(runner.Request(config_file, str(tmp_path / "run"), overrides))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_changed_data_is_refused(finished, config_file, tmp_path):
    import shutil

    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    other = tmp_path / "other.jsonl"
    other.write_text("".join(CORPUS.read_text().splitlines(keepends=True)[60:120]))
    tokenizer = str(finished / "tokenizer")
    request = runner.Request(
        None, str(workdir), {"data.path": str(other), "tokenizer.path": tokenizer}
    )
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(UserError, match="data or tokenizer have changed"):
        runner.train(request)
    assert (workdir / "config.json").read_bytes() == before
    assert rows(workdir) == rows(finished)


def command(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "lmjax.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XLA_FLAGS": ""} | environment,
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--config=nowhere.py", "--workdir=x"], ["nowhere.py", "configs/"]),
        (["--config={}", "--workdir=x", "--config.train.num_step=3"], ["did you mean"]),
        (["--config={}", "--workdir={}/run"], ["cannot be written"]),
    ],
)
def test_the_process_ends_with_one_line_and_a_code(config_file, arguments, parts):
    process = command(*(a.format(config_file) for a in arguments))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in out + err
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for part in parts:
        assert part in last


def test_importing_is_quick_and_light():
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import lmjax"], check=True)
    assert time.monotonic() - began < 3


@pytest.mark.slow
def test_a_training_process_loads_no_other_framework(config_file, tmp_path):
    code = (
        "import sys; from lmjax import runner; "
        f"runner.train(runner.Request({config_file!r}, {str(tmp_path / 'run')!r})); "
        "print([m for m in ('torch', 'tensorflow', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kills"), [("gpt2", [5, 10, 15]), ("bert", [10]), ("t5", [10])])
def test_killed_and_still_bit_for_bit(family, kills, config_files, tmp_path):
    def run(workdir, kill_after=None):
        """Runs the command; kills it once a row beyond checkpoint `kill_after` is logged."""
        process = command(
            f"--config={config_files[family]}",
            f"--workdir={workdir}",
            JAX_COMPILATION_CACHE_DIR=str(tmp_path / "jit"),
        )
        if kill_after is None:
            _, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            return
        checkpoint = workdir / "checkpoints" / str(kill_after)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            beyond = [r for r in metrics.read(workdir / "metrics.jsonl") if r["step"] > kill_after]
            if checkpoint.exists() and beyond:
                break
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.001)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (workdir / "checkpoints" / "24").exists()

    run(tmp_path / "whole")
    for kill_after in kills:
        run(tmp_path / "killed", kill_after)
    run(tmp_path / "killed")
    log = (tmp_path / "killed" / "lmjax.log").read_text()
    assert log.count("going on from step") == len(kills)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
