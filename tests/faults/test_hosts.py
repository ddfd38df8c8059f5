"""Two hosts, each a real process on this machine: other numbers of hosts, and one that stops."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import small_run

from lmjax import faults
from lmjax.data import files, prepare, tokenizer_training
from lmjax.train import checkpoint, fingerprint, metrics, trained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 240


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    """Of a store, since raw text is for one host."""
    folder = tmp_path_factory.mktemp("hosts")
    text = folder / "text.jsonl"
    lines = small_run.CORPUS.read_text().splitlines(keepends=True)
    text.write_text("".join(lines[:60]))
    found, tokenizer = files.find_files(str(text)), folder / "tokenizer"
    tokenizer.mkdir()
    tokenizer_training.train(
        found, str(tokenizer), vocab_size=600, model_type="bpe", sample_bytes=10**6
    )
    prepare.prepare(found, str(tokenizer), folder / "store", eval_fraction=0.1)
    file = folder / "config.py"
    file.write_text(small_run.config(folder / "store", folder / "cache"))
    return str(file)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return os.environ | {
        "XLA_FLAGS": "--xla_backend_optimization_level=1",  # one device each
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
    }


@pytest.fixture
def start(config_file, environment):
    """Starts the processes of a run; they are gone afterwards."""
    started = []

    def start(workdir, number, *arguments, fault=""):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "lmjax.main", f"--config={config_file}"]
        command += [f"--workdir={workdir}", "--config.log.ledger=True", *arguments]
        processes = []
        for index in range(number):
            flags, variables = [], dict(environment)
            if number > 1:
                flags = [f"--coordinator_address={address}", f"--num_processes={number}"]
                flags.append(f"--process_id={index}")
            if fault:
                flags, variables[faults.VARIABLE] = [*flags, "--test_faults"], fault
            process = subprocess.Popen(
                [*command, *flags],
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            processes.append(process)
        started.extend(processes)
        return processes

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def ended(processes):
    """Exit codes, and what was printed."""
    said = [process.communicate(timeout=SECONDS)[0] for process in processes]
    return [process.returncode for process in processes], said


def rows(workdir, name="metrics.jsonl"):
    return small_run.comparable(metrics.read(workdir / name))


def test_two_hosts_then_one_then_two(start, tmp_path):
    """A preempted run goes on with other hosts: the same rows, the same curve."""
    assert ended(start(tmp_path / "one", 1))[0] == [0]
    workdir = tmp_path / "run"
    for number, fault, code in ((2, "term@step:7", 75), (1, "term@step:14", 75), (2, "", 0)):
        codes, said = ended(start(workdir, number, fault=fault))
        assert codes == [code] * number, said
    assert "going on from step 1" in said[0]
    assert rows(workdir, "ledger.jsonl") == rows(tmp_path / "one", "ledger.jsonl")
    for mine, theirs in zip(rows(workdir), rows(tmp_path / "one"), strict=True):
        assert (mine["step"], mine["split"]) == (theirs["step"], theirs["split"])
        np.testing.assert_allclose(mine["loss"], theirs["loss"], rtol=1e-5)
        assert mine["tokens"] == theirs["tokens"]
    assert small_run.saved_steps(workdir) == [20, 24]
    # Only the first writes the run's files, and only it says what goes on.
    assert json.loads((workdir / "config.json").read_text())["source"]
    assert "step 24/24" in said[0]
    assert "step 24/24" not in said[1]
    assert not (workdir / "hosts" / "1" / "config.json").exists()


def test_what_two_hosts_saved_is_restored_bit_for_bit_by_one(start, tmp_path):
    workdir = tmp_path / "run"
    codes, said = ended(start(workdir, 2, "--config.train.num_steps=5"))
    assert codes == [0, 0], said
    loaded = trained.load(str(workdir), devices=jax.devices()[:1])
    checkpoints = checkpoint.Checkpoints(str(workdir / "checkpoints"), read_only=True)
    recorded = checkpoints.meta(5)["fingerprint"]
    checkpoints.close()
    found = fingerprint.of({"params": loaded.params})
    assert len(found) > 10
    assert found.items() <= recorded.items()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_the_other_host_leaves_at_the_deadline_and_names_the_silent_one(start, tmp_path, number):
    workdir = tmp_path / "run"
    flags = ("--config.watchdog.host=8", "--config.train.num_steps=100000")
    first, second = start(workdir, 2, *flags)
    deadline = time.monotonic() + SECONDS
    while not (workdir / "checkpoints" / "5.sha256").exists():
        assert time.monotonic() < deadline
        assert first.poll() is second.poll() is None
        time.sleep(0.05)
    second.send_signal(number)
    began = time.monotonic()
    codes, said = ended([first])
    assert codes == [124], said
    assert time.monotonic() - began < 60
    last = said[0].strip().splitlines()[-1]
    assert f"the run hangs: host 1 (process {second.pid} on {socket.gethostname()})" in said[0]
    assert "has shown no life for 8 s" in said[0]
    assert "The same command goes on from the last checkpoint" in last


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num_processes=2"], "belong together"),
        (
            ["--coordinator_address=localhost:1", "--num_processes=2", "--process_id=2"],
            "belong together",
        ),
    ],
)
def test_half_of_an_address_is_refused(config_file, environment, tmp_path, flags, words):
    command = [sys.executable, "-m", "lmjax.main", f"--config={config_file}"]
    command += [f"--workdir={tmp_path / 'run'}", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1
    assert words in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()
