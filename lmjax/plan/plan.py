"""What a run takes on devices that are not there, and the first way in which it fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lmjax import fields as fields_lib
from lmjax import flops
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.parallel import rules
from lmjax.plan import cost
from lmjax.plan.collectives import Collective
from lmjax.plan.compiled import Compiled, compile_step
from lmjax.plan.topology import Topology
from lmjax.train import describe, setup
from lmjax.train.console import size
from lmjax.train.setup import Program

# An estimate of memory may be wrong by so much; what is beyond that is not compiled to see.
_HOPELESS = 1.5


@dataclass(frozen=True)
class Asked:
    """What a plan is told besides the run.

    Attributes:
      mfu: share of the chips' peak that the run is taken to reach.
      keep: shares of raw text, by bytes, that curation keeps: one, or the ends of a range.
      bytes_per_token: of the text.
    """

    mfu: float = 0.4
    keep: Sequence[float] = cost.KEEP_RATES
    bytes_per_token: float = cost.BYTES_PER_TOKEN


@dataclass(frozen=True)
class Fit:
    """One way to run it.

    Attributes:
      program: on the topology.
      estimate: bytes on each device at the peak, by kind, from the config alone.
      compiled: what the compiler says; None: it was not asked.
      capacity: bytes that a device has.
    """

    program: Program
    estimate: dict[str, int]
    compiled: Compiled | None
    capacity: int

    @property
    def num_bytes(self) -> int:
        """On each device, at the peak."""
        return sum(self.estimate.values()) if self.compiled is None else self.memory["total"]

    @property
    def memory(self) -> dict[str, int]:
        """Bytes on each device at the peak, by kind; of what was compiled, the compiler's."""
        if self.compiled is None:
            return self.estimate | {"total": self.num_bytes}
        return dict(self.compiled.memory)

    @property
    def fits(self) -> bool:
        """Whether a device has that much."""
        taken = self.compiled is None or self.compiled.fits
        return taken and self.num_bytes <= self.capacity


@dataclass(frozen=True)
class Plan:
    """What a run takes on a topology.

    Attributes:
      topology, asked: as given.
      config: as given.
      fit: as it is configured.
      way: fields, and their values, with which it fits first; None: it does as it is, or in no way
        that was tried.
      found: with these; `fit`, where there are none.
      tried: ways and their outcomes, in words.
    """

    topology: Topology
    asked: Asked
    config: Config
    fit: Fit
    way: dict[str, Any] | None
    found: Fit
    tried: list[str]

    def collectives(self) -> list[Collective]:
        """What a step sends: the compiled program's, or what its mesh implies."""
        compiled = self.found.compiled
        if compiled is not None and compiled.fits:
            return compiled.collectives
        return cost.expected_collectives(self.found.program, self.topology.domains)

    def roofline(self) -> cost.Roofline | None:
        """The least time of a step; None for CPUs, of which there is no datasheet."""
        chip = self.topology.chip
        if chip is None:
            return None
        return cost.roofline(self.found.program, chip, self.found.estimate, self.collectives())


def make(
    config: Config,
    topology: Topology,
    asked: Asked,
    tell: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Plans a run.

    Args:
      config: as `config_file.make` gives it.
      topology: where it is to run.
      asked: what else the plan is told.
      tell: is told what goes on, line by line.

    Raises:
      UserError: an impossible combination, as it is configured.
    """
    fit = _fit(config, topology, tell)
    if fit.fits:
        return Plan(topology, asked, config, fit, None, fit, [])
    tried = [f"as it is: {_outcome(fit)}"]
    for way in _ways(config, fit):
        name = " ".join(f"{key}={value}" for key, value in way.items())
        try:
            other = _fit(fields_lib.replace(config, way), topology, tell)
        except UserError as error:  # the batch or a width does not divide over that mesh
            tried.append(f"{name}: {str(error).split(';')[0]}")
            continue
        tried.append(f"{name}: {_outcome(other)}")
        if other.fits:
            return Plan(topology, asked, config, fit, way, other, tried)
    return Plan(topology, asked, config, fit, None, fit, tried)


def _outcome(fit: Fit) -> str:
    basis = "by the compiler" if fit.compiled else "by estimate"
    return f"{'fits' if fit.fits else 'does not fit'}, {size(fit.num_bytes)} {basis}"


def _fit(config: Config, topology: Topology, tell: Callable[[str], None]) -> Fit:
    program = setup.make_program(setup.resolve(config), list(topology.devices))
    state, where = program.abstract, program.shardings
    exactly = {
        "parameters": rules.bytes_on_device(state.params, where.params),
        "optimizer": rules.bytes_on_device(state.opt_state, where.opt_state),
    }
    estimate, capacity = describe.memory(program) | exactly, topology.capacity
    if topology.why_not or sum(estimate.values()) > _HOPELESS * capacity:
        return Fit(program, estimate, None, capacity)
    compiled = compile_step(program, topology, tell)
    return Fit(program, estimate, compiled, compiled.capacity or capacity)


def _ways(config: Config, fit: Fit) -> Iterator[dict[str, Any]]:
    """What may make a run fit, in order: remat, accumulation, meshes; each on top of the last."""
    current = {name: value for name, value, _ in fields_lib.leaves(config)}
    remat = {"train.remat": "full"}
    ways: list[dict[str, Any]] = [{"train.remat": "dots"}, remat]
    ways += [remat | {"train.micro_batch_size": rows} for rows in _fewer_rows(fit)]
    for preset in ("fsdp", "fsdp_tensor_sequence"):
        mesh = {"mesh.preset": preset}
        ways += [mesh, mesh | remat, mesh | remat | {"train.micro_batch_size": "least"}]
    seen = []
    for way in ways:
        rows = way.get("train.micro_batch_size")
        if rows == "least":
            way = way | {"train.micro_batch_size": _least_rows(config, way, fit)}
        way = {name: value for name, value in way.items() if current[name] != value}
        weaker = way == {"train.remat": "dots"} and current["train.remat"] == "full"
        if way and way not in seen and not weaker:
            seen.append(way)
            yield way


def _fewer_rows(fit: Fit) -> list[int]:
    """Smaller micro-batches: by halves, each row of the devices at least."""
    program = fit.program
    batch, shards = program.config.train.global_batch_size, program.split.rows
    rows, found = program.micro_rows // 2, []
    while rows >= shards:
        if batch % rows == 0 and rows % shards == 0:
            found.append(rows)
        rows //= 2
    return found


def _least_rows(config: Config, way: dict[str, Any], fit: Fit) -> int:
    """One row for each part that the mesh of a way splits rows into."""
    mesh = fields_lib.replace(config, {k: v for k, v in way.items() if k.startswith("mesh.")}).mesh
    devices = fit.program.mesh.size
    return devices // (2 if mesh.preset == "fsdp_tensor_sequence" else 1)


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON has it; bytes and seconds are plain numbers, those of one device."""
    program, compiled = plan.found.program, plan.found.compiled
    config, topology, roofline = program.config, plan.topology, plan.roofline()
    of_step = flops.flops_per_row(config.model, program.row)
    batch = config.train.global_batch_size
    found = {
        "topology": {
            "name": topology.name,
            "devices": len(topology.devices),
            "kind": topology.devices[0].device_kind,
            "mesh": {axis: n for axis, n in program.mesh.shape.items() if n > 1},
        },
        "basis": "compiled" if compiled else f"estimated: {topology.why_not or 'far too large'}",
        "fits": plan.fit.fits,
        "memory": plan.fit.memory | {"capacity": plan.fit.capacity},
        "parameters": sum(flops.num_params(config.model).values()),
        "flops": {"step": of_step.full * batch, "step_causal": of_step.causal * batch},
        "collectives": [dataclasses.asdict(each) for each in plan.collectives()],
        "roofline": None,
        "time": cost.time(program, topology.peak, roofline, plan.asked.mfu),
        "tokens": cost.tokens(program, plan.asked.keep, plan.asked.bytes_per_token),
        "step": {
            "rows": batch,
            "micro_batch_size": program.micro_rows,
            "remat": config.train.remat,
            "dtype": program.model.dtype.name,
            "kernel": program.model.how.kernel,
            "fused_calls": compiled.kernels if compiled else None,
        },
        "compile_seconds": compiled.seconds if compiled else None,
        "tried": plan.tried,
    }
    if plan.way is not None:
        found["way"] = plan.way
        found["memory_of_way"] = plan.found.memory | {"capacity": plan.found.capacity}
    if roofline is not None:
        seconds = {"seconds": roofline.seconds, "bound": roofline.bound}
        found["roofline"] = dataclasses.asdict(roofline) | seconds
    return found | {"advice": advice(plan, found)}


def advice(plan: Plan, found: dict[str, Any]) -> list[str]:
    """What the figures of `as_dict` mean for who pays, in whole lines."""
    lines, tokens, roofline = [], found["tokens"], found["roofline"]
    if plan.way is not None:
        flags = " ".join(f"--config.{name}={value}" for name, value in plan.way.items())
        lines.append(f"it does not fit as it is; it does with {flags}")
    elif not plan.fit.fits:
        lines.append("it fits in none of the ways tried; take more or larger devices")
    share = tokens["run"] / tokens["compute_optimal"]
    if share < 0.5:
        lines.append(
            f"the run has {tokens['per_parameter']:.2g} tokens a parameter; a smaller model would "
            f"learn more from the same FLOPs (about {cost.TOKENS_PER_PARAMETER} are best)"
        )
    elif share > 2:
        lines.append(
            f"the run has {tokens['per_parameter']:.3g} tokens a parameter, beyond the "
            f"{cost.TOKENS_PER_PARAMETER} that are best for its FLOPs: right for a model that is "
            "to be small in use"
        )
    if roofline and roofline["bound"] == "network":
        lines.append(
            "the network bounds the step: more rows for each device, or fewer parts that exchange "
            "(config.mesh), would help"
        )
    if roofline and roofline["bound"] == "memory":
        lines.append("traffic with memory bounds the step: more rows at a time would help")
    return lines
