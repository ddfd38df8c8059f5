"""Hosts, each a real process on this machine: other numbers of them, and one that stops."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import small_run

from lmjax import batch as batch_lib
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
    known = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return known | {
        "XLA_FLAGS": "--xla_backend_optimization_level=1",  # one device each
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
    }


def free_port(first=0):
    """A port of localhost that nobody has, `first` or behind it; 0: any."""
    for port in range(first, first + 4096):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("localhost", port))
            return free.getsockname()[1]
    raise AssertionError("no port is free")


def by_flags(number):
    """Flags and variables of each process."""
    address = f"localhost:{free_port()}"
    flags = [f"--coordinator_address={address}", f"--num_processes={number}"]
    return [([*flags, f"--process_id={index}"], {}) for index in range(number)]


def by_slurm(number):
    """As srun starts them: with variables alone, and the port is that of the job's number."""
    ports = 65536 - 4096
    shared = {
        "SLURM_JOB_ID": str(free_port(ports + os.getpid() % 2048) - ports),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": str(number),
        "SLURM_NTASKS": str(number),
        "SLURM_NODEID": "0",
    }
    return [
        ([], shared | {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)})
        for index in range(number)
    ]


@pytest.fixture
def start(config_file, environment):
    """Starts the processes of a run; they are gone afterwards."""
    started = []

    def start(workdir, number, *arguments, fault="", told=by_flags):
        """A fault is of the last process."""
        command = [sys.executable, "-m", "lmjax.main", f"--config={config_file}"]
        command += [f"--workdir={workdir}", "--config.log.ledger=True", *arguments]
        processes = []
        for index, (flags, variables) in enumerate(told(number) if number > 1 else [([], {})]):
            if fault and index == number - 1:
                flags, variables = [*flags, "--test_faults"], variables | {faults.VARIABLE: fault}
            process = subprocess.Popen(
                [*command, *flags],
                env=environment | variables,
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


def test_any_number_of_hosts_gets_the_same_bytes(config_file, environment, tmp_path):
    """The rows of all hosts, in the order of the run, are those of one."""
    script, running = Path(__file__).with_name("host_batches.py"), []
    for number in (1, 2, 4):
        address = f"localhost:{free_port()}"
        for index in range(number):
            arguments = [config_file, tmp_path / f"run_{number}", tmp_path / f"{number}_{index}", 5]
            arguments += [address, number, index] if number > 1 else []
            command = [sys.executable, script, *arguments]
            running.append(
                subprocess.Popen(
                    [str(argument) for argument in command],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
    codes, said = ended(running)
    assert codes == [0] * 7, said
    found = {
        number: [np.load(tmp_path / f"{number}_{index}.npz") for index in range(number)]
        for number in (1, 2, 4)
    }
    names = set(found[1][0].files)
    assert {name.split("/")[0] for name in names} > {f"step {step}" for step in range(5)}
    assert len({name.split("/")[0] for name in names}) > 6  # held-out chunks, too
    row_names = {name: f"{name.split('/')[0]}/{batch_lib.INFO_PREFIX}row" for name in names}
    for number, hosts in found.items():
        for name in names:
            whole, order = found[1][0][name], found[1][0][row_names[name]]
            parts = [host[name] for host in hosts]
            assert {len(part) for part in parts} == {len(whole) // number}
            rows_R = np.concatenate([host[row_names[name]] for host in hosts])
            union = np.concatenate(parts)[np.argsort(rows_R)]
            assert union.dtype == whole.dtype
            assert union.tobytes() == whole[np.argsort(order)].tobytes(), (number, name)


def test_four_hosts_then_one_then_two_then_four(start, tmp_path):
    """A preempted run goes on with other hosts, told by SLURM alone: the same rows and curve."""
    fields = ("--config.train.num_steps=32", "--config.log.every=1", "--config.model.num_layers=1")
    codes, said = ended(start(tmp_path / "one", 1, *fields))
    assert codes == [0], said
    workdir, start_step = tmp_path / "run", 0
    legs = [(4, "term@step:8", 75), (1, "term@step:16", 75), (2, "term@step:23", 75), (4, "", 0)]
    for number, fault, code in legs:
        codes, said = ended(start(workdir, number, *fields, fault=fault, told=by_slurm))
        assert codes == [code] * number, said
        going_on = re.search(r"going on from step (\d+)", said[0])
        assert (going_on is not None) == (start_step > 0)
        if going_on:
            assert int(going_on[1]) == start_step
        start_step = small_run.saved_steps(workdir)[-1]
        for index, text in enumerate(said):
            told = f"process {index} of {number}: waiting for all at localhost:"
            assert (told in text and "(found by SLURM)" in text) == (number > 1)
    assert rows(workdir, "ledger.jsonl") == rows(tmp_path / "one", "ledger.jsonl")
    pairs = list(zip(rows(workdir), rows(tmp_path / "one"), strict=True))
    assert [mine["split"] for mine, _ in pairs].count("eval") == 4
    np.testing.assert_allclose(pairs[0][0]["loss"], pairs[0][1]["loss"], rtol=1e-6)
    for mine, theirs in pairs:
        assert (mine["step"], mine["split"]) == (theirs["step"], theirs["split"])
        np.testing.assert_allclose(mine["loss"], theirs["loss"], rtol=1e-5)
        assert mine["tokens"] == theirs["tokens"]
        assert mine.keys() == theirs.keys()
    assert small_run.saved_steps(workdir) == [30, 32]
    # Only the first writes the run's files, and only it says what goes on.
    assert json.loads((workdir / "config.json").read_text())["source"]
    assert "step 32/32" in said[0]
    for index in (1, 2, 3):
        assert "step 32/32" not in said[index]
        own = {path.name for path in (workdir / "hosts" / str(index)).iterdir()}
        assert not own & {"config.json", "tokenizer", "checkpoints"}


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
