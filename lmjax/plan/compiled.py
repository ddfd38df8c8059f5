"""A training step compiled for devices that are not there: what it takes and what it sends."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from lmjax.plan import collectives
from lmjax.plan.collectives import Collective
from lmjax.plan.topology import Topology
from lmjax.train import setup
from lmjax.train.setup import Program
from lmjax.train.step import Part

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a step.

    Attributes:
      memory: bytes on each device at the peak, by kind.
      capacity: bytes that the compiler has for programs; None: it did not say.
      fits: whether it took the program.
      collectives: of a whole step; empty where it does not fit.
      kernels: calls of fused kernels in the text of the programs.
      seconds: that compiling took.
    """

    memory: Mapping[str, int]
    capacity: int | None
    fits: bool
    collectives: list[Collective]
    kernels: int
    seconds: float


def compile_step(
    program: Program, topology: Topology, tell: Callable[[str], None] = lambda line: None
) -> Compiled:
    """Compiles all programs of a training step, from shapes alone.

    Args:
      program: on the devices of `topology`.
      topology: something compiles for.
      tell: is told what goes on.
    """
    began, peaks, sent, kernels = time.monotonic(), [], [], 0
    axes = dict(program.mesh.shape)
    domains = _in_mesh_order(program, topology)
    with program.context():
        step = setup.make_steps(program, _tables(program)).train_step
        for part in step.parts(program.abstract, program.batch_spec(), program.num_micro):
            tell(f"compiling the {part.name} for {topology.name}")
            kernels += part.lowered.as_text().count("tpu_custom_call")
            try:
                compiled = part.lowered.compile()
            except jax.errors.JaxRuntimeError as error:
                used, capacity = _too_large(error)
                took = time.monotonic() - began
                return Compiled({"total": used}, capacity, False, [], kernels, took)
            peaks.append(_memory(part, compiled))
            found = collectives.of_program(compiled.as_text(), axes, domains)
            sent += [each.times(part.runs) for each in found]
    peak = max(peaks, key=lambda memory: memory["total"])
    took = time.monotonic() - began
    return Compiled(peak, None, True, collectives.total(sent), kernels, took)


def _tables(program: Program) -> dict[str, np.ndarray]:
    """What losses are reported against: of plans, their shape matters alone."""
    model = program.config.model
    classes = model.vocab_size if model.predicts_tokens else model.num_outputs
    return dict.fromkeys(("unigram", "content_unigram", "bytes"), np.zeros(classes, np.float32))


def _in_mesh_order(program: Program, topology: Topology) -> list[int]:
    of = {device.id: d for device, d in zip(topology.devices, topology.domains, strict=True)}
    return [of[device.id] for device in program.mesh.devices.flat]


def _memory(part: Part, compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes on a device while a program runs, by kind.

    `other` are tables, counters, and what fills arrays up to the tiles of the chip.
    """
    stats = compiled.memory_analysis()
    arguments = {name: n for name, n in part.held.items() if name not in part.beside}
    found = dict(part.held)
    found["other"] = max(stats.argument_size_in_bytes - sum(arguments.values()), 0)
    found["temporaries"] = stats.temp_size_in_bytes
    found["results"] = max(stats.output_size_in_bytes - stats.alias_size_in_bytes, 0)
    found["code"] = stats.generated_code_size_in_bytes
    return found | {"total": sum(found.values())}


def _too_large(error: jax.errors.JaxRuntimeError) -> tuple[int, int]:
    """Bytes that a program takes and that there are, by the words of the compiler.

    Raises the error itself, where it is about something else.
    """
    patterns = (
        r"[Uu]sed (\S+?)([KMGT]?) of (\S+?)([KMGT]?) hbm",
        r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)",
    )
    words = next((w for pattern in patterns if (w := re.search(pattern, str(error)))), None)
    if "RESOURCE_EXHAUSTED" not in str(error) or words is None:
        raise error
    used, capacity = (math.ceil(float(words[i]) * _UNITS[words[i + 1]]) for i in (1, 3))
    return used, capacity
