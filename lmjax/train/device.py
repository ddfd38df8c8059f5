"""What the device at hand can do: memory, number formats, matrix-product rate."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from lmjax import chips

# More memory for activations does not make a CPU faster, it only makes a step longer in coming.
_CPU_BUDGET = 8 * 2**30
# Shares of an accelerator's memory that an estimate may fill. TPUs keep arrays in tiles and copies
# in other orders: libtpu took 4 to 38 % more than the estimate (docs/benchmarks.md).
_BUDGET = {"gpu": 0.9, "tpu": 0.72}


def compute_dtype(requested: str, device: jax.Device) -> tuple[jnp.dtype, str]:
    """The compute type, and why, in words."""
    if requested != "auto":
        return jnp.dtype(requested), "as asked"
    if device.platform == "tpu":
        return jnp.dtype(jnp.bfloat16), "a TPU has bfloat16"
    capability = float(getattr(device, "compute_capability", None) or 0)
    if capability >= 8:
        return jnp.dtype(jnp.bfloat16), f"compute capability {capability} has bfloat16"
    reason = "a CPU computes in" if device.platform == "cpu" else "this GPU is fastest in"
    return jnp.dtype(jnp.float32), f"{reason} float32"


def memory_budget(device: jax.Device) -> int:
    """Bytes that one training step may take on a device."""
    limit = _limit(device)
    if limit is not None:
        return int(_BUDGET[device.platform] * limit)
    return min(host_memory().usable // 2, _CPU_BUDGET)


def capacity(device: jax.Device) -> int:
    """Bytes that a device has for a program: what JAX took of it, or this one's share of a host."""
    limit = _limit(device)
    if limit is not None:
        return limit
    return host_memory().usable // jax.local_device_count(device.platform)


def _limit(device: jax.Device) -> int | None:
    """Bytes of an accelerator's own memory that programs may take; None: not known, or a CPU."""
    if device.platform == "cpu":
        return None
    try:
        stats = device.memory_stats()
    except jax.errors.JaxRuntimeError:  # compiled for, but not here
        chip = chips.of(device.device_kind)
        return None if chip is None else chip.memory
    return (stats or {}).get("bytes_limit")


@dataclass(frozen=True)
class HostMemory:
    """Memory of this host in bytes; `limit` is the container's, None where there is none."""

    total: int
    available: int
    limit: int | None

    @property
    def usable(self) -> int:
        """What this process may use."""
        return self.available if self.limit is None else min(self.available, self.limit)


def host_memory() -> HostMemory:
    """The machine's memory as the system and the container's control group tell it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        available = total
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        limit = None
    return HostMemory(total, available, limit)


def matmul_flops(device: jax.Device, dtype: jnp.dtype, seconds: float = 0.5) -> float:
    """Measured rate of a large matrix product on one device, FLOP/s."""
    n = 1024 if device.platform == "cpu" else 8192
    with jax.default_device(device):
        x = jnp.ones((n, n), dtype)
        multiply = jax.jit(lambda a, b: a @ b)
        multiply(x, x).block_until_ready()
        best, end = 0.0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            multiply(x, x).block_until_ready()
            best = max(best, 2 * n**3 / (time.perf_counter() - began))
    return best
