"""Faults of a run, row by row of the table in docs/reliability.md, through the real process."""

import json
import os
import re
import shutil
import signal
import threading
import time

import pytest
import small_run
import tool_run

from lmjax.exit_codes import HUNG, INTERRUPTED, PREEMPTED
from lmjax.train import metrics

pytestmark = pytest.mark.slow


def rows(workdir, name="metrics.jsonl"):
    return small_run.comparable(metrics.read(workdir / name))


def assert_exact(workdir, whole):
    assert rows(workdir) == rows(whole)
    assert rows(workdir, "ledger.jsonl") == rows(whole, "ledger.jsonl")
    mine, theirs = (small_run.parameters(w / "checkpoints" / "24") for w in (workdir, whole))
    small_run.assert_same_bits(mine, theirs)


def sealed(workdir):
    """Steps whose saves have landed, as the run sees it: what fails on purpose is on disk."""
    return sorted(int(path.stem) for path in (workdir / "checkpoints").glob("*.sha256"))


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the undisturbed run."""
    return shutil.copytree(whole, tmp_path / "run")


def test_faults_are_refused_without_the_flag(start, tmp_path):
    ended = start(tmp_path / "run", fault="kill@step:3", allowed=False)
    assert ended.code == 1
    assert "--test_faults" in ended.last
    assert not (tmp_path / "run").exists()
    ended = start(tmp_path / "run", fault="trip@step:3")
    assert ended.code == 1
    assert "is no fault" in ended.last


@pytest.mark.parametrize(
    "fault",
    ["kill@step:13", "kill@saving:10", "kill@landed:10"],
)
def test_killed_and_exact_after_the_same_command(start, whole, tmp_path, fault):
    workdir = tmp_path / "run"
    assert start(workdir, fault=fault).code == -9
    assert start(workdir).code == 0
    assert_exact(workdir, whole)
    assert small_run.saved_steps(workdir) == [20, 24]


def test_killed_while_restoring_and_compiling(start, whole, tmp_path):
    workdir = tmp_path / "run"
    assert start(workdir, fault="kill@saved:10").code == -9
    for fault in ("kill@restore", "kill@compile+0.1"):
        assert start(workdir, fault=fault).code == -9
        assert small_run.saved_steps(workdir)[-1] == 10
    assert start(workdir).code == 0
    assert_exact(workdir, whole)


@pytest.mark.parametrize(
    ("fault", "saved"),
    [
        ("term@step:13", 13),
        ("term@evaluation:8", 8),
        ("term@data:13+0.3,hang@data:13", 12),
        ("term@compile+0.2", None),
        ("term@prepare", None),
    ],
)
def test_stopped_by_a_signal_wherever_it_is(start, whole, tmp_path, fault, saved):
    workdir = tmp_path / "run"
    ended = start(workdir, fault=fault)
    assert ended.code == PREEMPTED, ended.err
    if saved is not None:
        assert small_run.saved_steps(workdir)[-1] == saved
    assert start(workdir).code == 0
    assert_exact(workdir, whole)


def test_a_second_signal_ends_a_save_that_hangs(start, whole, tmp_path):
    workdir = tmp_path / "run"
    ended = start(workdir, fault="hang@saving:10,term@step:10+0.5,term@step:10+1.5")
    assert ended.code == INTERRUPTED
    assert ended.last.startswith("error: interrupted a second time")
    assert sealed(workdir) == [5]
    assert start(workdir).code == 0
    assert_exact(workdir, whole)


def test_a_full_disk_leaves_the_save_before(start, tmp_path):
    workdir = tmp_path / "run"
    ended = start(workdir, fault="full@saving:10")
    assert ended.code == 1
    assert "full" in ended.last
    assert sealed(workdir) == [5]
    assert start(workdir).code == 0


def test_a_failing_store_is_tried_again(start, whole, tmp_path):
    workdir = tmp_path / "run"
    ended = start(workdir, fault="error@saving:10*3")
    assert ended.code == 0, ended.err
    assert len(re.findall("trying again", ended.err + ended.out)) == 3
    assert_exact(workdir, whole)
    ended = start(tmp_path / "other", fault="error@saving:10*9")
    assert ended.code == 1
    assert sealed(tmp_path / "other") == [5]


def test_an_update_that_is_not_finite_is_not_made(start, tmp_path):
    ended = start(tmp_path / "run", fault="nan@batch:4")
    assert ended.code == 0, ended.err
    assert "step 4: loss nan" in ended.err + ended.out
    counts = [row["skipped_updates"] for row in rows(tmp_path / "run") if row["split"] == "train"]
    assert counts[0] == 0
    assert counts[-1] == 1


def test_spikes_are_left_out_and_their_window_survives_a_kill(start, tmp_path):
    settings = ["--config.train.num_steps=150", "--config.train.skip_spikes=True"]
    spike = "spike@batch:140"
    assert start(tmp_path / "whole", *settings, fault=spike).code == 0
    log = (tmp_path / "whole" / "lmjax.log").read_text()
    assert "step 140: loss" in log
    assert "this update was not made (1 in all)" in log
    killed = tmp_path / "killed"
    assert start(killed, *settings, fault=f"kill@step:135,{spike}").code == -9
    assert start(killed, *settings, fault=spike).code == 0
    assert rows(killed) == rows(tmp_path / "whole")
    mine, theirs = (
        small_run.parameters(w / "checkpoints" / "150") for w in (killed, tmp_path / "whole")
    )
    small_run.assert_same_bits(mine, theirs)


def test_ten_of_them_end_the_run_and_nothing_of_it_is_saved(start, tmp_path):
    workdir = tmp_path / "run"
    ended = start(workdir, fault="nan@batch:7*10")
    assert ended.code == 1
    assert "10th update in a row" in ended.last
    assert small_run.saved_steps(workdir) == [5]


def test_a_newer_folder_of_something_else_is_passed_over(start, whole, copy):
    foreign = copy / "checkpoints" / "30"
    (foreign / "state").mkdir(parents=True)
    (foreign / "state" / "junk").write_text("no checkpoint")
    ended = start(copy)
    assert ended.code == 0, ended.err
    assert "going back to step 24" in ended.err + ended.out
    assert_exact(copy, whole)
    assert [p.name for p in (copy / "checkpoints").glob("damaged_30_*")]


def test_two_processes_do_not_share_a_workdir(start, config_file, tmp_path):
    workdir, ends = tmp_path / "run", []
    fault = "term@data:13+10,hang@data:13"
    first = threading.Thread(target=lambda: ends.append(start(workdir, fault=fault)))
    first.start()
    while not (workdir / "metrics.jsonl").exists():
        first.join(0.1)
    second = tool_run.run("main", f"--config={config_file}", f"--workdir={workdir}")
    assert second.code == 1
    assert "in use by another process" in second.err
    first.join()
    assert ends[0].code == PREEMPTED


@pytest.mark.parametrize(("fault", "phase"), [("hang@data:13", "data"), ("hang@saving:10", "save")])
def test_a_run_that_hangs_is_ended(start, tmp_path, fault, phase):
    workdir = tmp_path / "run"
    ended = start(workdir, f"--config.watchdog.{phase}=2", fault=fault)
    assert ended.code == HUNG, ended.err
    assert f"the run hangs: {phase} has taken longer than 2 s" in ended.err + ended.out
    log = (workdir / "lmjax.log").read_text()
    assert "stacks of all threads" in log
    assert "faults.py" in log
    assert start(workdir, f"--config.watchdog.{phase}=600").code == 0


def test_a_dead_worker_ends_the_run(start, tmp_path):
    """Grain's worker processes are killed while the run waits for them."""
    workdir, ended = tmp_path / "run", []
    thread = threading.Thread(
        target=lambda: ended.append(
            start(
                workdir,
                "--config.data.num_workers=1",
                "--config.train.num_steps=4000",
                "--config.watchdog.data=5",
            )
        )
    )
    thread.start()
    file = workdir / "metrics.jsonl"
    while not (file.exists() and len(file.read_bytes().splitlines()) > 3):
        time.sleep(0.05)
        assert thread.is_alive(), ended
    (main,) = _children(os.getpid(), "lmjax.main")
    for worker in _children(main, "multiprocessing"):
        os.kill(worker, signal.SIGKILL)
    thread.join(60)
    assert not thread.is_alive()
    assert ended[0].code in (1, HUNG)
    assert "Traceback" not in ended[0].last


def _children(parent, words):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                is_child = int(file.read().rsplit(")", 1)[1].split()[1]) == parent
            with open(f"/proc/{pid}/cmdline") as file:
                if is_child and words in file.read():
                    found.append(int(pid))
        except OSError:
            continue
    return found


def test_a_torn_line_and_later_rows_are_cut(start, whole, tmp_path):
    workdir = tmp_path / "run"
    assert start(workdir, fault="kill@step:13").code == -9
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 18, "split": "train"}) + "\n" + '{"step": 21, "spl')
    assert start(workdir).code == 0
    assert_exact(workdir, whole)


def test_a_damaged_compilation_cache_is_made_again(start, whole, tmp_path):
    own = tmp_path / "compiled"
    start(tmp_path / "before", fault="kill@step:1", JAX_COMPILATION_CACHE_DIR=str(own))
    for file in own.glob("*-cache"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    ended = start(tmp_path / "run", JAX_COMPILATION_CACHE_DIR=str(own))
    assert ended.code == 0, ended.err
    assert "Error reading persistent compilation cache" in ended.err
    assert_exact(tmp_path / "run", whole)


def test_a_run_that_never_comes_further_is_told(start, tmp_path):
    said = [start(tmp_path / "run", fault="kill@data:1") for _ in range(4)]
    assert [ended.code for ended in said] == [-9] * 4
    warned = ["in a row from step 0" in ended.out + ended.err for ended in said]
    assert warned == [False, False, False, True]
