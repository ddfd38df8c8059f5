"""A plan's figures beside those of the run itself, on the machine at hand.

Parameters and moments are counted on the devices. Memory is what a process grows by from before its
state is made to the peak of its steps, without what compiling and initialising need: by the
system's account on a CPU, by JAX's on an accelerator. The time of a step is predicted at a share of
the machine's rate; `calibrated` is the share that this step reached, for other configs to be
predicted with.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from lmjax import chips, flops
from lmjax.bench.stepper import Stepper
from lmjax.config import Config
from lmjax.parallel import rules
from lmjax.train import data as data_lib
from lmjax.train import describe, setup
from lmjax.train import device as device_lib
from lmjax.train.data import Stores
from lmjax.train.setup import Program

_READY = 4  # batches made beforehand


@dataclass(frozen=True)
class Planned:
    """Bytes on a device and seconds of a step, (predicted, measured) each.

    Attributes:
      parameters, optimizer: bytes.
      memory: bytes at the peak; predicted by the compiler's account.
      estimated: the same, from the config alone.
      seconds: of a step; predicted at `share` of `rate`.
      rate: FLOP/s of the machine: a chip's peak, or that of a matrix product, measured in turns.
      share: of it, that was assumed.
      calibrated: that was reached.
      rounds: that times are medians of.
    """

    parameters: tuple[int, int]
    optimizer: tuple[int, int]
    memory: tuple[int, int]
    estimated: int
    seconds: tuple[float, float]
    rate: float
    share: float
    calibrated: float
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(config: Config, stores: Stores, seconds: float, share: float) -> Planned:
    """Predicts a config's step, and makes some.

    Args:
      config: resolved.
      stores: its text.
      seconds: how long to train, compilation apart; at least three steps.
      share: of the machine's rate, that steps are taken to reach.
    """
    program = setup.make_program(config, ids=setup.make_ids(config, stores.tokenizer))
    made = data_lib.all_train_batches(config, stores, program.objective)
    tables = data_lib.open_data(config, stores, program.objective, program.eval_objective).tables
    batches = itertools.cycle([made(i) for i in range(_READY)])
    state, where = program.abstract, program.shardings
    with program.context():
        steps = setup.make_steps(program, tables)
        shapes = [program.batch_spec()] * program.num_micro
        compiled = steps.train_step.memory(state, shapes)
        Stepper(steps, program.init()).block(batches, 1, 0.0)  # compiles
        before = _taken(program.device)
        stepper = Stepper(steps, jax.block_until_ready(program.init()))
        held = [
            _held(tree, program.device) for tree in (stepper.state.params, stepper.state.opt_state)
        ]
        _taken(program.device)  # what the initialisation needed goes back
        for _ in range(2):
            stepper.block(batches, 1, 0.0)
        memory = _peak(program.device) - before
        times, rates = [], []
        end = time.monotonic() + seconds
        while len(times) < 3 or time.monotonic() < end:
            rates.append(_rate(program))
            times.append(1 / stepper.block(batches, 1, 1.0))
    of_row = flops.flops_per_row(config.model, program.row).full
    whole, rate = of_row * config.train.global_batch_size, statistics.median(rates)
    step = statistics.median(times)
    return Planned(
        (rules.bytes_on_device(state.params, where.params), held[0]),
        (rules.bytes_on_device(state.opt_state, where.opt_state), held[1]),
        (compiled, memory),
        sum(describe.memory(program).values()),
        (whole / (rate * share), step),
        rate,
        share,
        whole / rate / step,
        len(times),
    )


def _held(tree: Any, device: jax.Device) -> int:
    """Bytes of arrays that are on a device."""
    shards = (shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards)
    return sum(shard.data.nbytes for shard in shards if shard.device == device)


def _rate(program: Program) -> float:
    """FLOP/s of all devices."""
    peak = chips.peak_flops(program.device.device_kind)
    if peak is not None:
        return peak * program.mesh.size
    return device_lib.matmul_flops(program.device, program.model.dtype)


def _taken(device: jax.Device) -> int:
    """Bytes that are taken now; from here on a CPU's peak is counted anew."""
    gc.collect()
    if device.platform != "cpu":
        return device.memory_stats()["bytes_in_use"]
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that it counts when it is taken
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: jax.Device) -> int:
    """Bytes that were taken at the most; of an accelerator since the process began."""
    if device.platform != "cpu":
        return device.memory_stats()["peak_bytes_in_use"]
    return _status("VmHWM")


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split(f"{name}:")[1].split()[0])
