import json
import uuid

import pytest

from lmjax import config as config_lib
from lmjax import fields as fields_lib
from lmjax import paths
from lmjax.errors import UserError
from lmjax.train import lease, workdir
from lmjax.train.workdir import RunConfig, Workdir

SOURCE = {"file": "a.py", "sha256": "aa"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def run():
    config = fields_lib.replace(config_lib.Config(), {"schedule.decay_steps": 1000})
    return RunConfig(config, SOURCE)


def test_config_survives_the_disk(tmp_path, run):
    folder = Workdir(tmp_path / "run")
    assert workdir.read(folder.path) is None
    folder.write(run)
    assert workdir.read(folder.path) == run
    folder.close()


def test_a_second_process_is_kept_out(tmp_path):
    first = Workdir(tmp_path)
    with pytest.raises(UserError, match="in use by another process"):
        Workdir(tmp_path)
    first.close()
    Workdir(tmp_path).close()


def test_free_fields_change_and_are_recorded(run):
    asked = {"train.num_steps": 2000, "log.every": run.config.log.every}
    resumed = workdir.resume(run, SOURCE, asked)
    assert resumed.config.train.num_steps == 2000
    assert resumed.config.schedule.decay_steps == 1000  # the schedule does not bend
    assert resumed.changes == [{"field": "train.num_steps", "from": 1000, "to": 2000}]
    assert workdir.resume(resumed, None, {}).changes == resumed.changes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer.learning_rate", 1.0),
        ("train.global_batch_size", 32),
        ("train.seed", 5),
        ("model.num_layers", 3),
        ("data.seq_len", 64),
        ("schedule.decay_steps", 7000),
    ],
)
def test_fixed_fields_are_refused_with_both_values(run, field, value):
    before = {n: v for n, v, _ in fields_lib.leaves(run.config)}[field]
    with pytest.raises(UserError) as caught:
        workdir.resume(run, SOURCE, {field: value})
    assert f"config.{field}" in str(caught.value)
    assert repr(before) in str(caught.value)
    assert repr(value) in str(caught.value)
    assert workdir.resume(run, SOURCE, {field: before}).changes == []


def test_another_config_file_is_refused(run):
    with pytest.raises(UserError, match=r"started from a\.py, and b\.py is not the same"):
        workdir.resume(run, {"file": "b.py", "sha256": "bb"}, {})
    moved = {"file": "elsewhere/a.py", "sha256": "aa"}
    assert workdir.resume(run, moved, {}).config == run.config


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"format": 9}', '{"format": 1, "config": 3}']
)
def test_a_damaged_config_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError) as caught:
        workdir.read(tmp_path)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        Workdir(tmp_path / "file" / "run")


def test_config_json_is_plain(tmp_path, run):
    folder = Workdir(tmp_path)
    folder.write(run)
    folder.close()
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["config"]["family"] == "gpt2"
    assert raw["source"] == SOURCE


def test_a_workdir_in_a_bucket_is_brought_and_taken_back(run, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.02)
    url = f"memory://workdirs/{uuid.uuid4().hex}"
    assert workdir.read(url) is None
    first = Workdir(url)
    with pytest.raises(UserError, match="in use"):
        Workdir(url)
    first.write(run)
    first.metrics.write_text("row 1\n")
    first.tensorboard.mkdir()
    (first.tensorboard / "events").write_text("e")
    first.sync()
    first.metrics.write_text("row 1\nrow 2\n")
    assert paths.read_bytes(f"{url}/metrics.jsonl") == b"row 1\n"
    local = first.path
    first.close()
    assert not local.exists()
    assert paths.read_bytes(f"{url}/metrics.jsonl") == b"row 1\nrow 2\n"
    assert paths.read_bytes(f"{url}/tensorboard/events") == b"e"
    assert workdir.read(url) == run

    second = Workdir(url)
    assert second.metrics.read_text() == "row 1\nrow 2\n"
    assert not second.tensorboard.exists()  # old events stay where they are
    second.close()
    assert paths.read_bytes(f"{url}/.lock") is None


def test_who_lost_the_lock_writes_no_more():
    url = f"memory://workdirs/{uuid.uuid4().hex}"
    folder = Workdir(url)
    folder.metrics.write_text("stale")
    paths.write_bytes(f"{url}/.lock", b'{"token": "other", "host": "far", "pid": 1}')
    with pytest.raises(UserError, match="taken over"):
        folder.sync()
    with pytest.raises(UserError, match="taken over"):
        folder.close()
    assert paths.read_bytes(f"{url}/metrics.jsonl") is None
