"""What a run shows beside its own files: TensorBoard reads it back, and so does Weights & Biases'
stand-in; the real package was tried by hand (docs/watch.md)."""

import json
import re
import shutil
import socket
import subprocess
import sys
import types
import urllib.request
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import small_run

from lmjax import runner
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.fields import replace
from lmjax.train import metrics, wandb_sink
from lmjax.train.samples import Sample

# TensorBoard's reader, which warns of what it lacks, in a process of its own.
READ = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0}).Reload()
tags = events.Tags()
scalars = {t: [(e.step, e.value) for e in events.Scalars(t)] for t in tags["scalars"]}
text = lambda proto: proto.string_val[0].decode()
texts = {t: [(e.step, text(e.tensor_proto)) for e in events.Tensors(t)] for t in tags["tensors"]}
print(json.dumps([scalars, texts]))
"""


class Wandb(types.ModuleType):
    """A stand-in for the package, which writes down what it is called with."""

    def __init__(self, mode="offline", key=True, fails=""):
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.mode, self.key, self.fails = mode, key, fails
        self.runs, self.finished = [], 0
        self.url, self.dir = "https://wandb.test/run", "somewhere"

    def setup(self):
        return types.SimpleNamespace(settings=types.SimpleNamespace(mode=self.mode))

    def login(self, *, prompt):
        assert not prompt
        return self.key

    def Settings(self, **settings):
        return settings

    def Table(self, *, columns, data):
        return [dict(zip(columns, row, strict=True)) for row in data]

    def init(self, **asked):
        self._may_fail("init")
        self.runs.append(asked | {"logged": []})
        return self

    def log(self, values, *, step):
        self._may_fail("log")
        self.runs[-1]["logged"].append((step, values))

    def finish(self):
        self._may_fail("finish")
        self.finished += 1

    def _may_fail(self, what):
        if what in self.fails:
            raise ConnectionError(f"no route to the host at {what}\nand more")


@pytest.fixture
def wandb(monkeypatch):
    """Puts a stand-in where the package would be."""

    def put(**how):
        found = Wandb(**how)
        monkeypatch.setitem(sys.modules, "wandb", found)
        return found

    return put


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(a run of 24 steps, the same resumed from step 20, what W&B got of both)."""
    folder = tmp_path_factory.mktemp("sinks")
    file = small_run.config_file(folder)
    whole, resumed = folder / "whole", folder / "resumed"
    fields = {"eval.num_samples": 2, "log.wandb": "team/project"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", found := Wandb())
        assert runner.train(runner.Request(file, str(whole), fields)) == 0
        shutil.copytree(whole, resumed)
        shutil.rmtree(resumed / "checkpoints" / "24")
        (resumed / "checkpoints" / "24.sha256").unlink()
        assert runner.train(runner.Request(None, str(resumed))) == 0
    return whole, resumed, found


def test_samples_of_a_resumed_run_are_those_of_one_that_was_not_stopped(runs):
    whole, resumed, _ = runs
    content = (whole / "samples.jsonl").read_bytes()
    assert (resumed / "samples.jsonl").read_bytes() == content
    rows = list(metrics.read(whole / "samples.jsonl"))
    assert [(row["step"], row["index"]) for row in rows] == [
        (step, index) for step in (8, 16, 24) for index in (0, 1)
    ]
    assert "  sample: " in (whole / "lmjax.log").read_text()


@pytest.mark.slow
def test_samples_change_nothing_of_training(runs, tmp_path):
    whole, without = runs[0], tmp_path / "run"
    assert runner.train(runner.Request(str(whole.parent / "gpt2.py"), str(without))) == 0
    assert not (without / "samples.jsonl").exists()
    both = (whole, without)
    rows = [small_run.comparable(metrics.read(w / "metrics.jsonl")) for w in both]
    assert rows[0] == rows[1]
    mine, theirs = (small_run.parameters(w / "checkpoints" / "24") for w in both)
    small_run.assert_same_bits(mine, theirs)


def read_events(folder):
    command = [sys.executable, "-c", READ, str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("which", [0, 1])
def test_tensorboard_has_all_that_the_files_have(runs, which):
    """Of the resumed one, too, though its event files hold steps 21 to 24 twice."""
    workdir = runs[which]
    scalars, texts = read_events(workdir / "tensorboard")
    wanted = {}
    for row in metrics.read(workdir / "metrics.jsonl"):
        step, split = row.pop("step"), row.pop("split")
        for name, value in row.items():
            wanted.setdefault(f"{split}/{name}", []).append([step, float(np.float32(value))])
    assert scalars == wanted
    assert sorted(texts) == ["samples/0/text_summary", "samples/1/text_summary"]
    for row in metrics.read(workdir / "samples.jsonl"):
        events = texts[f"samples/{row['index']}/text_summary"]
        (shown,) = {text for step, text in events if step == row["step"]}
        for name in ("prompt", "text", "reference"):
            assert "".join(row[name].split()) in "".join(shown.split())


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_the_server_of_tensorboard_shows_it(runs):
    whole, _, _ = runs
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={whole}", "--host=127.0.0.1"]
    with subprocess.Popen(
        [*command, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert any(re.search(r"TensorBoard .* at http", line) for line in server.stderr)
            data = f"http://127.0.0.1:{port}/data"
            assert get(f"{data}/runs") == ["tensorboard"]
            scalars = get(f"{data}/plugin/scalars/scalars?run=tensorboard&tag=eval%2Floss")
            texts = get(f"{data}/plugin/text/text?run=tensorboard&tag=samples%2F0%2Ftext_summary")
        finally:
            server.terminate()
            server.stderr.read()
    rows = [r for r in metrics.read(whole / "metrics.jsonl") if r["split"] == "eval"]
    assert [(step, value) for _, step, value in scalars] == [
        (row["step"], float(np.float32(row["loss"]))) for row in rows
    ]
    assert [text["step"] for text in texts] == [8, 16, 24]
    assert "<pre><code>" in texts[0]["text"]


def test_weights_and_biases_gets_the_same_as_the_files(runs):
    whole, resumed, found = runs
    first, second = found.runs
    assert (first["entity"], first["project"], first["name"]) == ("team", "project", "whole")
    assert first["id"] == second["id"] == json.loads((whole / "wandb.json").read_text())["id"]
    assert first["resume"] == "allow"
    assert first["config"]["train"]["num_steps"] == 24
    assert found.finished == 2
    for workdir, run, begins in ((whole, first, 3), (resumed, second, 21)):
        steps = [step for step, _ in run["logged"]]
        assert steps == sorted(steps)  # what goes back W&B leaves out
        logged = {}
        for step, values in run["logged"]:
            logged.setdefault(step, {}).update(values)
        for row in metrics.read(workdir / "metrics.jsonl"):
            step, split = row.pop("step"), row.pop("split")
            if step >= begins:
                assert {f"{split}/{k}": v for k, v in row.items()}.items() <= logged[step].items()
        for row in metrics.read(workdir / "samples.jsonl"):
            if row["step"] >= begins:
                assert row | {"filled": None} in logged[row["step"]]["samples"]


def config(name="project"):
    return replace(Config(), {"log.wandb": name})


@pytest.fixture
def heard(monkeypatch):
    """Warnings, as they come."""
    said = []
    monkeypatch.setattr(wandb_sink.logger, "warning", said.append)
    return said


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_what_fails_there_is_one_line_and_no_more(wandb, tmp_path, heard, fails):
    found = wandb(fails=fails)
    sink = wandb_sink.WandB(config(), tmp_path, "run")
    for step in (1, 2):
        sink.scalars(step, "train", {"loss": 1.0})
        sink.texts(step, [Sample(0, "a", "b", "c")])
    sink.flush()
    sink.close()
    (message,) = heard
    assert "Weights & Biases cannot" in message
    assert f"no route to the host at {fails}; training goes on without it" in message
    assert sum(len(run["logged"]) for run in found.runs) == (4 if fails == "finish" else 0)


def test_who_is_not_logged_in_is_told_and_not_asked(wandb, tmp_path, heard):
    found = wandb(mode="online", key=False)
    sink = wandb_sink.WandB(config(), tmp_path, "run")
    sink.scalars(1, "train", {"loss": 1.0})
    (message,) = heard
    assert "not logged in (`wandb login`" in message
    assert not found.runs


def test_links_that_lead_out_of_the_workdir_do_not_stay(wandb, tmp_path):
    wandb()
    logs = tmp_path / "wandb" / "run-1" / "logs"
    logs.mkdir(parents=True)
    (logs / "debug.log").write_text("kept")
    (logs / "debug-core.log").symlink_to("/")
    wandb_sink.WandB(config(), tmp_path, "run")
    assert [path.name for path in logs.iterdir()] == ["debug.log"]


def test_the_missing_package_is_one_line_before_anything_is_spent(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_sink.importlib.util, "find_spec", lambda name: None)
    file = small_run.config_file(tmp_path)
    request = runner.Request(file, str(tmp_path / "run"), {"log.wandb": "project"})
    with pytest.raises(UserError, match=r"needs the package wandb.*pip install 'lmjax\[wandb\]'"):
        runner.train(request)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["", "a/b/c", "my project", "/a"])
def test_what_is_no_project_is_refused(name):
    with pytest.raises(UserError, match=r"log\.wandb"):
        config(name)
