"""Devices by name, here or not: `v5e:4x4`, `2xv5e:4x4` (two slices), `h100:8`, `cpu:8`.

For TPUs libtpu describes the devices and compiles for them without one. Others, and TPUs without
libtpu, are stand-ins: they lie in a mesh and say what they are, and nothing compiles for them.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from lmjax import chips
from lmjax.chips import Chip
from lmjax.errors import UserError
from lmjax.train import device as device_lib

_FORM = re.compile(r"(?:(\d+)x)?([a-z]\w*):(\d+(?:x\d+)*)")
_HOST = (2, 2, 1)  # chips of a TPU host
# Said beforehand, so that libtpu asks no cloud what this machine is, and is quiet about it.
_NOT_THERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}


class Elsewhere:
    """A client of JAX in another process than this one."""

    @staticmethod
    def process_index() -> int:
        """Of no process."""
        return -1


@dataclass(frozen=True)
class StandIn:
    """A device that is not here, with what a mesh and a program ask of one."""

    id: int
    platform: str
    device_kind: str
    process_index: int
    slice_index: int
    coords: tuple[int, ...]
    compute_capability: str | None = None
    core_on_chip: int = 0
    client: type[Elsewhere] = Elsewhere

    def memory_stats(self) -> None:
        """Raises what JAX does for a device that is described only."""
        raise jax.errors.JaxRuntimeError("this device is not here")


@dataclass(frozen=True)
class Topology:
    """Devices of one kind.

    Attributes:
      name: as asked for.
      chip: their kind; None: CPUs.
      devices: all of them.
      domains: of each, the slice (TPU) or host (GPU) within which its links are fast.
      why_not: why nothing compiles for them, in words; None: it does.
    """

    name: str
    chip: Chip | None
    devices: Sequence[Any]
    domains: tuple[int, ...]
    why_not: str | None

    @functools.cached_property
    def peak(self) -> float:
        """FLOP/s of all devices, by datasheet or, of CPUs, by a product measured now."""
        if self.chip is not None:
            return self.chip.flops * len(self.devices)
        return device_lib.matmul_flops(jax.devices("cpu")[0], jnp.float32)

    @property
    def capacity(self) -> int:
        """Bytes of one device, a chip's own or a CPU's share of this machine's."""
        if self.chip is not None:
            return self.chip.memory
        return device_lib.host_memory().usable // len(self.devices)


def make(name: str, *, analytic: bool = False) -> Topology:
    """The topology of a name.

    Args:
      name: [SLICESx]CHIP:SHAPE.
      analytic: whether TPUs are to be stand-ins, too.

    Raises:
      UserError: no such topology, or no libtpu.
    """
    match = _FORM.fullmatch(name)
    if not match or match[2] not in (*chips.BY_NAME, "cpu"):
        raise UserError(
            f"--topology={name} is not known; write {', '.join(_examples())}, or 2xv5e:4x4 for two "
            "slices"
        )
    slices, shape = int(match[1] or 1), tuple(map(int, match[3].split("x")))
    chip = chips.BY_NAME.get(match[2])
    if 0 in (slices, *shape):
        raise UserError(f"--topology={name} has no devices; write {', '.join(_examples())}")
    if chip is not None and chip.platform == "tpu":
        dims = 3 if chip.name == "v5p" else 2
        if len(shape) != dims:
            raise UserError(
                f"--topology={name}: a {chip.name} slice has {dims} dims; write for example "
                f"{chip.name}:{'x'.join('4' * dims)}"
            )
        if not analytic:
            return _tpus(name, chip, slices, shape)
    elif slices > 1 or len(shape) > 1:
        raise UserError(f"--topology={name}: only TPUs have a shape and slices; write {match[2]}:8")
    return _stand_ins(name, chip, slices, shape)


def _examples() -> list[str]:
    shapes = {"v5p": "4x4x4", "v5e": "4x4", "v6e": "4x4"}
    return [f"{name}:{shapes.get(name, '8')}" for name in (*chips.BY_NAME, "cpu")]


def _tpus(name: str, chip: Chip, slices: int, shape: tuple[int, ...]) -> Topology:
    for variable, value in _NOT_THERE.items():
        os.environ.setdefault(variable, value)
    host = _HOST if math.prod(shape) > 1 else (1, 1, 1)
    try:
        devices = topologies.get_topology_desc(
            f"{chip.name}:{'x'.join(map(str, shape))}",
            "tpu",
            num_slices=slices,
            chips_per_host_bounds=host,
        ).devices
    except RuntimeError as error:  # what libtpu says is a JaxRuntimeError, which is one, too
        if "not installed" in str(error):
            raise UserError(
                f"--topology={name} needs libtpu to compile for TPUs; pip install 'lmjax[tpu]', or "
                "give --analytic for what needs no compiler"
            ) from error
        raise UserError(
            f"--topology={name}: there is no such slice; libtpu says: "
            f"{str(error).splitlines()[0]}; take another shape, such as {chip.name}:"
            f"{'4x4x4' if chip.name == 'v5p' else '4x4'}"
        ) from error
    domains = tuple(getattr(device, "slice_index", None) or 0 for device in devices)
    return Topology(name, chip, devices, domains, None)


def _stand_ins(name: str, chip: Chip | None, slices: int, shape: tuple[int, ...]) -> Topology:
    places = list(itertools.product(*map(range, shape)))
    domain = (chip and chip.domain) or len(places)
    devices = [
        StandIn(
            id=i,
            platform=chip.platform if chip else "cpu",
            device_kind=chip.device_kind if chip else "cpu",
            process_index=i // (4 if chip and chip.platform == "tpu" else domain),
            slice_index=i // len(places),
            coords=(*place, 0)[:3],
            compute_capability="8.0" if chip else None,  # the least of the GPUs in `chips`
        )
        for i, (_, place) in enumerate(itertools.product(range(slices), places))
    ]
    why = "for TPUs alone there is a compiler without the chip"
    if chip and chip.platform == "tpu":
        why = "as asked"
    return Topology(name, chip, devices, tuple(d.id // domain for d in devices), why)
