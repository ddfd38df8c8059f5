"""The other processes of a run: who started them, where all meet, and whose GPUs are whose.

JAX knows how to read what SLURM, a TPU pod and Kubernetes say of a process. Here is decided
whether there is anything to read: one process by itself asks nobody.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from jax._src import clusters

from lmjax.errors import UserError, reason

_OF_A_TASK = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)
_CLUSTERS = {
    "SLURM": clusters.SlurmCluster,
    "GKE": clusters.GkeTpuCluster,
    "Cloud TPU": clusters.GceTpuCluster,
    "Kubernetes": clusters.K8sCluster,
}


@dataclass(frozen=True)
class Peers:
    """All processes of a run, as one of them sees them.

    Attributes:
      address: HOST:PORT, where process 0 answers.
      number: how many there are.
      index: this one's, from 0.
      by: the launcher that said so; None: flags did.
    """

    address: str
    number: int
    index: int
    by: str | None = None

    def __str__(self) -> str:
        return f"process {self.index} of {self.number}"

    @property
    def place(self) -> str:
        """The address, and how it is known."""
        return f"{self.address} (found by {self.by})" if self.by else self.address


def launcher(variables: Mapping[str, str], on_tpu: bool) -> str | None:
    """What may have started this process as one of several; None: it is by itself.

    Args:
      variables: of the environment.
      on_tpu: whether this machine has TPUs, with JAX made for them.
    """
    if _is_task(variables):
        # A shell within an allocation is one task, of an allocation for several.
        tasks = variables.get("SLURM_STEP_NUM_TASKS", variables["SLURM_NTASKS"])
        return "SLURM" if int(tasks) > 1 else None
    if on_tpu and "tpu" in (variables.get("JAX_PLATFORMS") or "tpu"):
        if "TPU_PROCESS_ADDRESSES_PATH" in variables:
            return "GKE"
        hosts = variables.get("TPU_PROCESS_ADDRESSES", variables.get("TPU_WORKER_HOSTNAMES"))
        if hosts is not None:
            slices = int(variables.get("MEGASCALE_NUM_SLICES") or 1)
            return "GKE" if "," in hosts or slices > 1 else None
        if "TPU_SKIP_MDS_QUERY" not in variables:
            return "Cloud TPU"
    if "KUBERNETES_SERVICE_HOST" in variables and "JOB_COMPLETION_INDEX" in variables:
        return "Kubernetes"
    return None


def find(by: str, seconds: int) -> Peers | None:
    """Asks a launcher for the processes it has started; None: there is only this one.

    Args:
      by: from `launcher`.
      seconds: that the host of process 0 may take to get its name.

    Raises:
      UserError: it does not say, or a package is missing.
    """
    alone = "--num_processes=1 for this process alone"
    if by == "Kubernetes" and importlib.util.find_spec("kubernetes") is None:
        raise UserError(
            "this is a pod of an indexed job, and the Python package kubernetes, by which it finds "
            f"the other pods, is missing; pip install 'lmjax[k8s]', or give {alone}"
        )
    cluster = _CLUSTERS[by]
    try:
        if not cluster.is_env_present() or (number := cluster.get_process_count()) == 1:
            return None
        port = os.environ.get("JAX_COORDINATOR_PORT")
        address = cluster.get_coordinator_address(seconds, port)
        return Peers(address, number, cluster.get_process_id(), by)
    except Exception as error:
        raise UserError(
            f"{by} does not say where the other processes are ({type(error).__name__}: "
            f"{reason(error)}); give --coordinator_address, --num_processes and --process_id, or "
            f"{alone}"
        ) from error


def gpus(variables: Mapping[str, str]) -> list[int] | None:
    """Ordinals of the GPUs that a SLURM task takes, of those it sees; None: all of them.

    JAX by itself takes the one whose ordinal is the task's on its node, which is too few where a
    task has several, and not there where SLURM shows each task its own only.
    """
    if not _is_task(variables) or "JAX_LOCAL_DEVICE_IDS" in variables:
        return None
    index, tasks = int(variables["SLURM_LOCALID"]), _tasks_here(variables)
    seen = variables.get("CUDA_VISIBLE_DEVICES")
    number = len(seen.split(",")) if seen else int(variables.get("SLURM_GPUS_ON_NODE") or 0)
    own = int(variables.get("SLURM_GPUS_PER_TASK", "0").rpartition(":")[2])  # "a100:2"
    if tasks == 1 or 0 < number < tasks or 0 < number <= own:
        return None
    share = max(1, number // tasks)
    return list(range(index * share, (index + 1) * share))


def _is_task(variables: Mapping[str, str]) -> bool:
    return all(name in variables for name in _OF_A_TASK)


def _tasks_here(variables: Mapping[str, str]) -> int:
    """How many tasks of the step are on this node; "2(x3),1" is of three nodes and a fourth."""
    counts: list[int] = []
    for count, times in re.findall(
        r"(\d+)(?:\(x(\d+)\))?", variables.get("SLURM_STEP_TASKS_PER_NODE", "")
    ):
        counts += [int(count)] * int(times or 1)
    node = int(variables.get("SLURM_NODEID", 0))
    return counts[node] if node < len(counts) else int(variables["SLURM_NTASKS"])
