"""The least time of a step by a roofline, and what a whole run takes.

Williams et al. 2009: a step takes no less than its arithmetic at the chip's peak, than its traffic
with the chip's memory, and than its bytes over the network, each alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmjax import flops
from lmjax.chips import Chip
from lmjax.parallel.rules import num_parts
from lmjax.plan.collectives import Collective, received
from lmjax.train.setup import Program

TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022, table 3, about
KEEP_RATES = (0.01, 0.03)  # of raw text of the web, by bytes: Penedo et al. 2024, about
BYTES_PER_TOKEN = 4.0  # of English, by a vocabulary of some ten thousands

_FLOAT32 = 4
_DAY = 86_400
# Forward products that are made again on the way back, as a share of all.
_RECOMPUTED = {"none": 0.0, "dots": 0.0, "full": 1 / 3}


@dataclass(frozen=True)
class Roofline:
    """Seconds that a step takes at the least, by each bound alone."""

    compute: float
    memory: float
    network: float

    @property
    def seconds(self) -> float:
        """Of a step, all three at once."""
        return max(self.compute, self.memory, self.network)

    @property
    def bound(self) -> str:
        """Which of the three it is."""
        return max(("compute", "memory", "network"), key=lambda name: getattr(self, name))


def roofline(
    program: Program, chip: Chip, parts: Mapping[str, int], sent: Sequence[Collective]
) -> Roofline:
    """The roofline of a step.

    Args:
      program: the step's.
      chip: its devices.
      parts: bytes on each, from `flops.memory`.
      sent: its collectives.
    """
    config = program.config
    model_flops = flops.flops_per_row(config.model, program.row).causal
    again = 1 + _RECOMPUTED[config.train.remat]
    whole = config.train.global_batch_size * model_flops * again
    compute = whole / (chip.flops * program.mesh.size)
    network = sum(
        each.received / (chip.outer_rate if each.outer else chip.link_rate) for each in sent
    )
    return Roofline(compute, _traffic(program, parts) / chip.memory_rate, network)


def _traffic(program: Program, parts: Mapping[str, int]) -> float:
    """Bytes that a step moves between a chip and its memory, at the least.

    Weights are read on the way forward and twice on the way back, in the compute type; what is kept
    for the way back is written and read; the update reads gradients and state, and writes state.
    """
    number = sum(flops.num_params(program.config.model).values()) / program.split.tensor
    weights = 3 * number * program.model.dtype.itemsize
    of_micro = weights + 2 * parts["activations"] + 2 * parts["gradients"]
    update = parts["gradients"] + 2 * (parts["parameters"] + parts["optimizer"])
    return program.num_micro * of_micro + update


def expected_collectives(program: Program, domains: Sequence[int]) -> list[Collective]:
    """What a step sends by the mesh alone, where nothing compiles: larger transfers only.

    fsdp gathers the weights on either way and scatters the sums of gradients (Rajbhandari et al.
    2020), data sums gradients, tensor sums a layer's activations (Shoeybi et al. 2019): as often on
    the way back as forward, and once more where remat makes them again.
    """
    mesh, config, micro = program.mesh, program.config, program.num_micro
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]
    width = program.model.dtype.itemsize
    number = sum(flops.num_params(config.model).values())
    found: list[Collective] = []

    def add(kind: str, axis: str, count: int, num_bytes: float) -> None:
        members = num_parts(mesh, axis)
        if members > 1:
            into = count * received(kind, num_bytes, members)
            whole, outer = int(count * num_bytes), _leaves(program, axis, domains)
            found.append(Collective(kind, (axis,), outer, count, whole, int(into)))

    add("all-gather", "fsdp", 2 * micro, width * number / tensor)
    add("reduce-scatter", "fsdp", micro, _FLOAT32 * number / tensor)
    add("all-reduce", "data", micro, _FLOAT32 * number / (fsdp * tensor))
    ways = 3 if config.train.remat == "full" else 2
    for layers, length, sums in _layers(program):
        activations = program.rows_per_device * length * config.model.hidden_size * width
        add("all-reduce", "tensor", ways * sums * layers * micro, activations)
    return found


def _layers(program: Program) -> list[tuple[int, int, int]]:
    """(layers, positions, sums of each layer) of every stack."""
    model, row = program.config.model, program.row
    two = bool(row.source)
    stacks = [(model.num_layers, row.target, 3 if two else 2)]
    return stacks + [(model.encoder_layers, row.source, 2)] * two


def _leaves(program: Program, axis: str, domains: Sequence[int]) -> bool:
    """Whether an axis of the mesh leaves a slice or a host."""
    place = program.mesh.axis_names.index(axis)
    ids = program.mesh.device_ids.swapaxes(place, -1).reshape(-1, program.mesh.shape[axis])
    of = dict(zip(sorted(ids.flat), domains, strict=True))
    return any(len({of[i] for i in row}) > 1 for row in ids)


def tokens(program: Program, keep: Sequence[float], bytes_per_token: float) -> dict:
    """Tokens of the run, what a compute-optimal one would want, and the raw text for that.

    Args:
      program: of the run.
      keep: shares of the bytes of raw text that curation keeps, one or a range.
      bytes_per_token: of the text.
    """
    config, number = program.config, sum(flops.num_params(program.config.model).values())
    run = config.train.num_steps * config.train.global_batch_size * program.row.tokens
    optimal = TOKENS_PER_PARAMETER * number
    of_optimal = bytes_per_token * optimal
    return {
        "run": run,
        "per_parameter": run / number,
        "compute_optimal": optimal,
        "bytes_per_token": bytes_per_token,
        "keep_rate": sorted(keep),
        "raw_text_bytes": sorted(round(of_optimal / share) for share in keep),
    }


def time(program: Program, peak: float, least: Roofline | None, mfu: float) -> dict[str, float]:
    """Seconds of a step and of the run, and what it takes of devices, at an MFU.

    The full FLOPs of the model, as MFU counts them; never less than the roofline.

    Args:
      program: of the run.
      peak: FLOP/s of all devices.
      least: its roofline; None: there is none.
      mfu: share of the peak.
    """
    config = program.config
    step = flops.flops_per_row(config.model, program.row).full * config.train.global_batch_size
    seconds = max(step / (peak * mfu), least.seconds if least else 0.0)
    days = seconds * config.train.num_steps / _DAY
    return {
        "mfu": mfu,
        "peak_flops": peak,
        "seconds_per_step": seconds,
        "days": days,
        "chip_hours": days * 24 * program.mesh.size,
    }
