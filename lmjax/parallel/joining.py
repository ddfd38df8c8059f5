"""How a process joins the others of its run, before anything else of JAX."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import jax
from jax._src import cloud_tpu_init

from lmjax.errors import UserError
from lmjax.exit_codes import ERROR, leave_at_once
from lmjax.parallel import peers as peers_lib
from lmjax.parallel.peers import Peers

# JAX's own end of its patience is that of the process, with a stack trace; ours comes before.
_LONGER = 600
# Longer than a run's own patience with a silent host, which ends it with a reason.
_HEARTBEAT_SECONDS = 600
_LEAVE_SECONDS = 30  # that a process waits for the others at its end

_Result = TypeVar("_Result")


def join(
    address: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    seconds: int,
    say: Callable[[str], object],
) -> None:
    """Joins the other processes, or returns at once where there are none.

    Without any of the first three, SLURM, a TPU pod or Kubernetes say what they are, if this
    process is of one of these. It ends with exit code 1 when the others have not all come in time.

    Args:
      address: HOST:PORT of process 0.
      num_processes: how many there are; 1, alone: this is the only one, whoever started it.
      process_id: this one's, from 0.
      seconds: to find the others, and then to wait for them.
      say: prints the line that explains the end.

    Raises:
      UserError: half of what is needed is given, or the others cannot be found or joined.
    """
    if num_processes == 1 and process_id in (None, 0):
        return
    peers = _peers(address, num_processes, process_id, seconds, say)
    if peers is None:
        return
    print(f"{peers}: waiting for all at {peers.place}", file=sys.stderr, flush=True)
    why = f"others of the {peers.number} are missing"
    if peers.index:
        why = f"process 0 does not answer there, or {why}"
    late = (
        f"{peers} has waited {seconds} s at {peers.place}: {why}; start all of them within that "
        "time (--join_seconds), with an address that all can reach, or this one alone with "
        "--num_processes=1"
    )
    _within(seconds, lambda: _join(peers, seconds), late, say)


def _peers(
    address: str | None,
    num_processes: int | None,
    process_id: int | None,
    seconds: int,
    say: Callable[[str], object],
) -> Peers | None:
    given = (address, num_processes, process_id)
    if given == (None, None, None):
        by = peers_lib.launcher(os.environ, cloud_tpu_init.running_in_cloud_tpu_vm)
        if by is None:
            return None
        late = (
            f"{by} has not said within {seconds} s where the other processes are; raise "
            "--join_seconds, or give --coordinator_address, --num_processes and --process_id"
        )
        return _within(seconds, lambda: peers_lib.find(by, seconds), late, say)
    if None in given or not 0 <= process_id < num_processes:
        raise UserError(
            "--coordinator_address, --num_processes and --process_id belong together, with "
            "process_id from 0 to num_processes - 1; give all three, or none for one process"
        )
    return Peers(address, num_processes, process_id)


def _join(peers: Peers, seconds: int) -> None:
    try:
        jax.distributed.initialize(
            peers.address,
            peers.number,
            peers.index,
            local_device_ids=peers_lib.gpus(os.environ),
            cluster_detection_method="deactivate",  # or JAX would choose a GPU for us
            initialization_timeout=seconds + _LONGER,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_LEAVE_SECONDS,
        )
    except Exception as error:
        raise UserError(
            f"--coordinator_address={peers.place}: {peers} cannot join ({type(error).__name__}); "
            "start all processes with the same address, that of a free port on the host of "
            "process 0"
        ) from error


def _within(
    seconds: int, act: Callable[[], _Result], late: str, say: Callable[[str], object]
) -> _Result:
    """What `act` returns, or the end of the process.

    `act` is at it in a thread of its own, since it waits where no signal is heard.
    """
    outcome: Future[_Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(act())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="join", daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():  # it is `act` that says so
            raise
        say(late)
        leave_at_once(ERROR)
