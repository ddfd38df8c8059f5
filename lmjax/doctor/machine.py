"""The machine and what is installed on it: devices, versions, extras, memory, disk, rate."""

from __future__ import annotations

import functools
import glob
import os
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

from lmjax import chips, foreign, paths
from lmjax.doctor.report import Section
from lmjax.errors import UserError
from lmjax.train import device as device_lib
from lmjax.train.console import count, size

_LITTLE_MEMORY, _LITTLE_DISK = 2 * 2**30, 2 * 2**30
_SLOW = 0.3  # of the datasheet peak: less says that the chip is shared or throttled
# What of the environment decides about devices; nothing else of it is looked at.
_VARIABLES = (
    "JAX_PLATFORMS",
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
    "CUDA_VISIBLE_DEVICES",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "JAX_ENABLE_X64",
)


def find_devices() -> list[Any]:
    """JAX's devices.

    Raises:
      UserError: there is no backend to be had.
    """
    import jax

    try:
        return jax.devices()
    except Exception as error:
        why = f"{type(error).__name__}: {foreign.first_line(error)}"
        raise UserError(
            foreign.explain(error) or f"JAX cannot start its devices ({why}); reinstall jax"
        ) from error


def devices(found: Sequence[Any]) -> Section:
    """Kind, number and memory of the devices, and the rate of a matrix product on one."""
    section, first = Section("devices"), found[0]
    section.add("kind", f"{len(found)} x {first.device_kind} ({first.platform})")
    stats = first.memory_stats() if first.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        used = size(stats.get("bytes_in_use", 0))
        section.add("memory of each", f"{size(stats['bytes_limit'])} as JAX has it, {used} in use")
    else:
        section.add(
            "memory of each", f"{size(device_lib.capacity(first))}, its share of the host's"
        )
    dtype, reason = device_lib.compute_dtype("auto", first)
    section.add("computes in", f"{dtype.name}: {reason}")
    rate, peak = measured_rate(first), chips.peak_flops(first.device_kind)
    said = f"{count(rate)}FLOP/s in {dtype.name}, measured now"
    section.add("matrix product", said + (f", {rate / peak:.0%} of the datasheet" if peak else ""))
    if peak and rate < _SLOW * peak:
        section.problems.append(
            f"a matrix product reaches {rate / peak:.0%} of the datasheet peak of "
            f"{first.device_kind}; end other programs on this device, check its temperature and "
            "power limit (nvidia-smi)"
        )
    for name in _VARIABLES:
        if name in os.environ:
            section.add(name, os.environ[name])
    section.problems += _unused_accelerators({d.platform for d in found})
    return section


@functools.cache
def measured_rate(device: Any) -> float:
    """FLOP/s of a matrix product in the type that a device trains in, measured once."""
    return device_lib.matmul_flops(device, device_lib.compute_dtype("auto", device)[0])


def _unused_accelerators(platforms: set[str]) -> list[str]:
    """Chips that the system has and JAX does not see."""
    asked = os.environ.get("JAX_PLATFORMS")
    problems = []
    for platform_name, what, files, extra in (
        ("gpu", "an NVIDIA GPU", "/dev/nvidia[0-9]*", "'lmjax[cuda12]' or 'lmjax[cuda13]'"),
        ("tpu", "a TPU", "/dev/accel[0-9]*", "'lmjax[tpu]'"),
    ):
        if platform_name in platforms or not glob.glob(files):
            continue
        fix = f"unset JAX_PLATFORMS, which is {asked}" if asked else f"pip install {extra}"
        problems.append(f"{what} is here and JAX sees only {', '.join(platforms)}; {fix}")
    return problems


def versions() -> Section:
    """Versions of Python, lmjax and what it requires."""
    section = Section("versions", ("package", "version", "required"))
    try:
        requirements = [Requirement(text) for text in metadata.requires("lmjax") or []]
        wanted_python = metadata.metadata("lmjax").get("Requires-Python") or ""
    except metadata.PackageNotFoundError:
        raise UserError("lmjax is not installed; run `pip install -e .` in its folder") from None
    section.add("python", platform.python_version(), wanted_python)
    section.add("lmjax", metadata.version("lmjax"), "")
    for requirement in requirements:
        if requirement.marker is not None:
            continue
        found = _version(requirement.name)
        section.add(requirement.name, found or "missing", str(requirement.specifier))
        if not _satisfied(requirement):
            section.problems.append(
                f"{requirement.name} is {found or 'missing'}, lmjax needs {requirement.specifier}; "
                f"pip install '{requirement}'"
            )
    section.add("jaxlib", _version("jaxlib") or "missing", f"as of jax {_version('jax')}")
    return section


def extras() -> Section:
    """Which extras of lmjax are installed; none is required."""
    section = Section("extras", ("extra", "installed", "missing"))
    for extra in metadata.metadata("lmjax").get_all("Provides-Extra") or []:
        missing = _missing(Requirement(f"lmjax[{extra}]"))
        section.add(extra, "no" if missing else "yes", ", ".join(sorted(missing)))
    return section


def _missing(requirement: Requirement) -> set[str]:
    """What of a requirement, its extras' own requirements included, is not installed."""
    if not _satisfied(requirement):
        return {str(requirement).split(";")[0].strip()}
    missing = set()
    for text in metadata.requires(requirement.name) or []:
        needed = Requirement(text)
        of_extra = needed.marker is not None and any(
            needed.marker.evaluate({"extra": extra}) for extra in requirement.extras
        )
        if of_extra and not needed.marker.evaluate({"extra": ""}):
            missing |= _missing(needed)
    return missing


def _satisfied(requirement: Requirement) -> bool:
    found = _version(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def host(folders: Sequence[str]) -> Section:
    """Cores, memory and free disk of this host, limits of its container included.

    Args:
      folders: where things are written; the disks under them are looked at.
    """
    section, memory = Section("this machine"), device_lib.host_memory()
    section.add("system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    section.add("cores", _cores())
    limit = "no limit of a container" if memory.limit is None else f"limit {size(memory.limit)}"
    section.add("memory", f"{size(memory.available)} free of {size(memory.total)}, {limit}")
    if memory.usable < _LITTLE_MEMORY:
        section.problems.append(
            f"only {size(memory.usable)} of memory can be used; end other programs, or take a "
            "machine or container with more"
        )
    for folder in folders:
        if paths.is_remote(folder):
            continue
        there = _existing_parent(os.path.abspath(os.path.expanduser(folder)))
        free = shutil.disk_usage(there).free
        section.add(f"disk of {folder}", f"{size(free)} free")
        if free < _LITTLE_DISK:
            section.problems.append(
                f"the disk of {folder} has only {size(free)} left; free some space or write "
                "elsewhere"
            )
        if not os.access(there, os.W_OK):
            section.problems.append(f"{there} cannot be written; choose another folder")
    return section


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{usable} of {os.cpu_count()}"
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return text if quota == "max" else f"{text}, limit {int(quota) / int(period):.3g}"
    except (OSError, ValueError):
        return text


def _existing_parent(folder: str) -> str:
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder
