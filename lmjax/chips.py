"""Accelerators by their datasheets: one row each, for MFU, estimates and plans.

A name is that of a topology (`v5e:4x4`, `h100:8`). Rates are bytes and FLOPs a second of one chip,
in one direction; sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
      name: as topologies have it.
      platform: 'tpu' or 'gpu', as JAX has it.
      kinds: parts of what JAX calls its kind, any of which tells it.
      device_kind: what JAX calls it.
      flops: dense bfloat16 peak.
      memory: bytes of its own; of TPUs what libtpu leaves to programs.
      memory_rate: of that.
      link_rate: into a chip from those of its slice (TPU) or its host (GPU), all links together.
      outer_rate: into a chip from all others.
      domain: chips of a host that `link_rate` joins; None: all of a slice.
    """

    name: str
    platform: str
    kinds: tuple[str, ...]
    device_kind: str
    flops: float
    memory: int
    memory_rate: float
    link_rate: float
    outer_rate: float
    domain: int | None = None


def _tpu(name, kinds, device_kind, flops, gib, memory_rate, link_rate) -> Chip:
    # Hosts have 200 Gbit/s for their 4 chips.
    return Chip(
        name, "tpu", kinds, device_kind, flops, int(gib * _GIB), memory_rate, link_rate, 6.25e9
    )


def _gpu(name, device_kind, flops, size, memory_rate, link_rate, outer_rate) -> Chip:
    kinds = (name.upper(),)
    return Chip(
        name, "gpu", kinds, device_kind, flops, size, memory_rate, link_rate, outer_rate, domain=8
    )


# Google Cloud's pages of the TPU versions; NVIDIA's datasheets of the SXM boards, with the networks
# of its DGX machines. The first whose kind is part of the device's: "v5 lite" is before "v5".
CHIPS = (
    _tpu("v5e", ("TPU v5 lite", "TPU v5e"), "TPU v5 lite", 197e12, 15.75, 819e9, 200e9),
    _tpu("v5p", ("TPU v5",), "TPU v5", 459e12, 95.74, 2765e9, 600e9),
    _tpu("v6e", ("TPU v6",), "TPU v6 lite", 918e12, 31.25, 1640e9, 400e9),
    _gpu("h200", "NVIDIA H200", 989e12, 140 * _GIB, 4.8e12, 450e9, 50e9),
    _gpu("h100", "NVIDIA H100 80GB HBM3", 989e12, 80 * _GIB, 3.35e12, 450e9, 50e9),
    _gpu("a100", "NVIDIA A100-SXM4-80GB", 312e12, 80 * _GIB, 2.04e12, 300e9, 25e9),
)

BY_NAME = {chip.name: chip for chip in CHIPS}


def of(device_kind: str) -> Chip | None:
    """The chip that JAX calls so; None where it is not known."""
    return next((c for c in CHIPS if any(kind in device_kind for kind in c.kinds)), None)


def peak_flops(device_kind: str) -> float | None:
    """Datasheet peak of a chip, FLOP/s; None where it is not known."""
    chip = of(device_kind)
    return None if chip is None else chip.flops
