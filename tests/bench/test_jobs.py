"""Jobs that need one another: their order, going on, failing, cores, being stopped."""

import json
import os
import shutil
import sys
import time

import pytest

from lmjax.bench.jobs import Job, Runner
from lmjax.errors import UserError


def shell(name, script, *needs):
    return Job(name, ("/bin/sh", "-c", script), needs)


@pytest.fixture
def told():
    return []


@pytest.fixture
def runner(tmp_path, told):
    return Runner(tmp_path / "jobs", workers=2, tell=told.append)


def test_a_job_waits_for_what_it_needs(tmp_path, runner, told):
    file = tmp_path / "file"
    jobs = [
        shell("make/slow", f"sleep 0.3; echo made > {file}"),
        shell("read", f"cat {file}", "make/slow"),
        shell("other", "echo hello"),
    ]
    assert runner.run(jobs) == {}
    assert runner.log("read").read_text() == "made\n"
    assert told.index("other begins") < told.index("read begins")  # a free worker takes it
    assert told[-1].startswith("[3/3] read done in ")
    assert any(line.endswith(" to go") for line in told)


def test_what_is_done_is_not_done_again(tmp_path, runner, told):
    count = lambda: len((tmp_path / "count").read_text().split())
    jobs = [
        shell("first", f"echo x >> {tmp_path}/count"),
        shell("second", f"echo x >> {tmp_path}/count", "first"),
        shell("third", f"echo x >> {tmp_path}/count"),
    ]
    runner.run(jobs)
    assert count() == 3
    told.clear()
    runner.run(jobs)
    assert count() == 3
    assert told == ["3 of 3 jobs are done already"]
    # Another command, and so whatever was made of what the first one left.
    runner.run([shell("first", f"echo  y >> {tmp_path}/count"), *jobs[1:]])
    assert count() == 5


def test_a_failure_says_its_last_line_and_leaves_the_others_alone(tmp_path, runner, told):
    script = f"test -e {tmp_path}/there || {{ echo 'error: no file; make it'; echo; exit 1; }}"
    jobs = [
        shell("bad", script),
        shell("after", "echo 1", "bad"),
        shell("last", "echo 1", "after"),
        shell("good", "echo 1"),
    ]
    failed = runner.run(jobs)
    assert failed["bad"] == "error: no file; make it"
    assert failed["after"] == "not run: it needs bad"
    assert failed["last"] == "not run: it needs after"
    assert "good" not in failed
    (line,) = (line for line in told if "FAILED" in line)
    assert line.endswith(f"bad FAILED: error: no file; make it ({runner.log('bad')})")
    assert runner.end("bad").code == 1
    (tmp_path / "there").touch()
    assert runner.run(jobs) == {}
    assert runner.end("bad").code == 0


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is of Linux")
def test_each_worker_keeps_to_its_core(tmp_path):
    core = min(os.sched_getaffinity(0))
    say = "import json, os; print(json.dumps([list(os.sched_getaffinity(0)), os.environ]))"
    say = say.replace("os.environ", "os.environ['XLA_FLAGS']")
    runner = Runner(tmp_path, cores=[core], tell=lambda line: None)
    assert runner.run([Job("where", (sys.executable, "-c", say))]) == {}
    cores, flags = json.loads(runner.log("where").read_text())
    assert cores == [core]
    assert "--xla_cpu_multi_thread_eigen=false" in flags


def test_what_cannot_be_run(runner):
    with pytest.raises(UserError, match="two jobs are called a"):
        runner.run([shell("a", "true"), shell("a", "false")])
    with pytest.raises(UserError, match="b needs a; name a job that stands before it"):
        runner.run([shell("b", "true", "a")])


def test_who_stops_it_stops_its_jobs(tmp_path):
    def tell(line):
        if "quick done" in line:
            raise KeyboardInterrupt

    runner = Runner(tmp_path, workers=2, tell=tell)
    jobs = [shell("long", f"exec sleep 60; touch {tmp_path}/over"), shell("quick", "true")]
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runner.run(jobs)
    assert time.monotonic() - began < 20
    assert runner.end("long") is None  # so the next start runs it
    assert runner.end("quick").code == 0
