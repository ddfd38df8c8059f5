"""Who is one of several, who joins whom, and what a process says that waits in vain."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import jax
import pytest
from jax._src import cloud_tpu_init
from jax._src.clusters import cloud_tpu_cluster, k8s_cluster

from lmjax.errors import UserError
from lmjax.parallel import joining, peers

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[04-05]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.fixture
def asked(monkeypatch):
    """What JAX is told to join, instead of joining."""
    found = []
    for name in [
        name for name in os.environ if name.startswith(("SLURM_", "KUBERNETES_", "JAX_COO"))
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **kw: found.append((a, kw)))
    return found


def join(*given, seconds=5):
    said = []
    joining.join(*(given or (None,) * 3), seconds=seconds, say=said.append)
    assert said == []


@pytest.mark.parametrize(
    ("variables", "on_tpu", "by"),
    [
        ({}, False, None),
        (SLURM, False, "SLURM"),
        (SLURM, True, "SLURM"),
        (SLURM | {"SLURM_NTASKS": "1"}, False, None),
        # A shell in an allocation for four is one task; a batch script is none.
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, False, None),
        ({k: v for k, v in SLURM.items() if "STEP" not in k}, False, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True, "GKE"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, False, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, True, None),
        ({"TPU_PROCESS_ADDRESSES": "local", "TPU_WORKER_HOSTNAMES": "a,b"}, True, None),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True, "GKE"),
        ({"TPU_PROCESS_ADDRESSES_PATH": "/a/file"}, True, "GKE"),
        ({}, True, "Cloud TPU"),
        ({"JAX_PLATFORMS": "cpu"}, True, None),
        ({"TPU_SKIP_MDS_QUERY": "1"}, True, None),
        (POD, False, None),
        (POD | {"JOB_COMPLETION_INDEX": "0"}, False, "Kubernetes"),
    ],
)
def test_who_may_be_one_of_several(variables, on_tpu, by):
    assert peers.launcher(variables, on_tpu) == by


@pytest.mark.parametrize(
    ("variables", "taken"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [2, 3]),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, None),  # each task sees its own
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "a100:2"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_PER_TASK": "2"}, [2, 3]),
        ({"SLURM_STEP_TASKS_PER_NODE": "2,1", "CUDA_VISIBLE_DEVICES": "0,1"}, None),
        ({"SLURM_GPUS_ON_NODE": "8"}, [4, 5, 6, 7]),
        ({}, [1]),  # as JAX would
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "JAX_LOCAL_DEVICE_IDS": "3"}, None),
    ],
)
def test_which_gpus_a_task_takes(variables, taken):
    assert peers.gpus(SLURM | {"SLURM_LOCALID": "1"} | variables) == taken


def test_gpus_without_slurm_are_all_that_are_seen():
    assert peers.gpus({"CUDA_VISIBLE_DEVICES": "0,1"}) is None


def test_slurms_variables_are_enough(asked, monkeypatch, capsys):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    join()
    ((given, settings),) = asked
    assert given == ("node04:61447", 4, 2)
    assert settings["initialization_timeout"] > 5
    said = "process 2 of 4: waiting for all at node04:61447 (found by SLURM)\n"
    assert capsys.readouterr().err == said


def test_one_process_joins_nobody(asked, monkeypatch, capfd):
    join()
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    join(None, 1, None)
    join("a:1", 1, 0)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    join()
    assert asked == []
    assert capfd.readouterr() == ("", "")


def test_flags_go_before_what_the_launcher_says(asked, monkeypatch, capsys):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    join("a:1", 2, 1)
    assert [given for given, _ in asked] == [("a:1", 2, 1)]
    assert capsys.readouterr().err == "process 1 of 2: waiting for all at a:1\n"


@pytest.mark.parametrize(
    "given", [("a:1", 2, None), (None, 2, 0), ("a:1", 2, 2), ("a:1", 2, -1), (None, 1, 1)]
)
def test_half_an_address_is_refused(asked, given):
    with pytest.raises(UserError, match="belong together"):
        join(*given)
    assert asked == []


def test_a_pod_without_the_package_names_the_extra(asked, monkeypatch):
    for name, value in (POD | {"JOB_COMPLETION_INDEX": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lmjax\[k8s\]', or give --num_processes=1"):
        join()


def test_a_launcher_that_does_not_say(asked, monkeypatch):
    for name, value in (SLURM | {"SLURM_PROCID": "two"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"SLURM does not say .*'two'.*; give --coordinator_addr"):
        join()


@pytest.fixture
def on_gke(monkeypatch):
    """A host of a TPU pod slice, as far as JAX can see."""
    for module in (cloud_tpu_init, cloud_tpu_cluster):
        monkeypatch.setattr(module, "running_in_cloud_tpu_vm", True)
    variables = {
        "JAX_PLATFORMS": "",
        "TPU_WORKER_HOSTNAMES": "localhost,b",
        "TPU_WORKER_ID": "1",
        "MEGASCALE_COORDINATOR_ADDRESS": "localhost",
        "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": "1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_hosts_of_tpu_slices(on_gke, asked, capsys):
    join()
    ((given, settings),) = asked
    assert given == ("localhost:8482", 4, 3)
    assert settings["local_device_ids"] is None
    assert "waiting for all at localhost:8482 (found by GKE)" in capsys.readouterr().err


@pytest.mark.parametrize("pods", [1, 3])
def test_pods_of_an_indexed_job(asked, monkeypatch, capsys, pods):
    """With what Kubernetes would answer put in its place; one pod is alone."""
    for name, value in (POD | {"JOB_COMPLETION_INDEX": str(pods - 1)}).items():
        monkeypatch.setenv(name, value)
    labels = {"jobset.sigs.k8s.io/jobset-name": "localhost"}
    job = SimpleNamespace(
        spec=SimpleNamespace(parallelism=pods),
        metadata=SimpleNamespace(name="train", labels=labels),
    )
    cluster = k8s_cluster.K8sCluster
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(cluster, "is_env_present", lambda: True)
    monkeypatch.setattr(cluster, "_controller", lambda: SimpleNamespace(kind="Job"))
    monkeypatch.setattr(cluster, "_job", lambda: job)
    monkeypatch.setattr(cluster, "_pod", lambda: None)
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.0.1")
    join()
    assert [given for given, _ in asked] == [("train-0.localhost:55527", 3, 2)] * (pods > 1)
    assert ("(found by Kubernetes)" in capsys.readouterr().err) == (pods > 1)


def test_what_takes_too_long_to_be_found_ends_the_process(asked, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    ended, said = threading.Event(), []
    monkeypatch.setattr(peers, "find", lambda by, seconds: ended.wait(60))
    monkeypatch.setattr(joining, "leave_at_once", lambda code: said.append(code))
    joining.join(None, None, None, seconds=0.1, say=said.append)
    ended.set()
    assert said[0].startswith("SLURM has not said within 0.1 s where the other processes are; ")
    assert said[1] == 1


def started(variables, *flags):
    return subprocess.run(
        [sys.executable, "-m", "lmjax.main", "--dry_run", "--join_seconds=1", *flags],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("index", [0, 1])
def test_who_waits_in_vain_says_so_and_leaves(index):
    """Process 0, to whom nobody comes, and another, to whom it does not answer."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = [f"--coordinator_address={address}", "--num_processes=2", f"--process_id={index}"]
    done = started({}, *flags)
    assert done.returncode == 1
    waiting, *_, last = done.stderr.strip().splitlines()
    assert waiting == f"process {index} of 2: waiting for all at {address}"
    why = ["others of the 2", "process 0 does not answer there, or others of the 2"][index]
    cause = f"error: process {index} of 2 has waited 1 s at {address}: {why} are missing; start"
    assert last.startswith(cause)
    for trace in ("Traceback", "*** ", "F0000", "@ 0x", "Check failure stack"):
        assert trace not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_wait(number, code):
    flags = ["--coordinator_address=localhost:1", "--num_processes=2", "--process_id=1"]
    command = [sys.executable, "-m", "lmjax.main", "--dry_run", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "process 1 of 2: waiting for all at localhost:1\n"
        time.sleep(0.5)  # it is in JAX's own code by now
        process.send_signal(number)
        assert process.wait(60) == code
        assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_alone_within_slurm(tmp_path):
    """As in a shell of an allocation: it gets as far as a process that nobody has started."""
    variables = SLURM | {"SLURM_STEP_NODELIST": "localhost"}
    done = started(variables, "--num_processes=1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nothing to run: give --config=FILE")
    assert "process 2 of 4 has waited 1 s at localhost:61447 (found by SLURM)" in (
        started(variables).stderr
    )
