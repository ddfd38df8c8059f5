"""Which models this machine can train, and how long it would take: from configs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from lmjax import chips, flops, objectives
from lmjax import fields as fields_lib
from lmjax.batch import Ids
from lmjax.config import Config
from lmjax.doctor import machine
from lmjax.doctor.report import Section
from lmjax.errors import UserError
from lmjax.parallel import mesh as mesh_lib
from lmjax.parallel import rules as rules_lib
from lmjax.train import describe, setup, sizing
from lmjax.train import device as device_lib
from lmjax.train.console import count, duration, size

# What may help a model that is too large, in the order of what it costs.
_WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"train.micro_batch_size": "auto"},
    {"train.micro_batch_size": "auto", "train.remat": "full"},
    {"train.micro_batch_size": "auto", "mesh.preset": "fsdp"},
    {"train.micro_batch_size": "auto", "mesh.preset": "fsdp", "train.remat": "full"},
    {
        "train.micro_batch_size": "auto",
        "mesh.preset": "fsdp_tensor_sequence",
        "train.remat": "full",
    },
)


@dataclass(frozen=True)
class Fit:
    """What training takes on each of the devices at hand, in bytes, and in all, in seconds."""

    num_params: int
    parts: Mapping[str, int]
    capacity: int
    micro_rows: int
    seconds: float

    @property
    def num_bytes(self) -> int:
        """At the peak of a step."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether there is memory enough."""
        return self.num_bytes <= self.capacity


def fit(config: Config, devices: Sequence[jax.Device], measured: float | None = None) -> Fit:
    """What a config takes on `devices`.

    Args:
      config: as `config_file.make` gives it.
      devices: all of a kind.
      measured: as of `describe.expected_rate`.

    Raises:
      UserError: an impossible combination, or the batch does not divide over the devices.
    """
    config = setup.resolve(config)
    mesh = mesh_lib.make_mesh(config.mesh, devices)
    dtype, _ = device_lib.compute_dtype(config.train.dtype, devices[0])
    ids = Ids(num_ids=config.tokenizer.vocab_size, num_rows=config.model.vocab_size)
    row = flops.lengths(objectives.make(config, ids).spec(1))
    micro, split = sizing.rows_of_micro_batch(config, row, dtype, mesh), rules_lib.split(mesh)
    batch = config.train.global_batch_size
    parts = flops.memory(
        config,
        row,
        micro // split.rows,
        sizing.computing(config, dtype, mesh),
        accumulates=micro < batch,
        chunk=sizing.chunk_of_loss(config, row, dtype, micro, mesh),
    )
    rate = describe.expected_rate(devices[0], len(devices), dtype, measured)
    step_flops = flops.flops_per_row(config.model, row).full * batch
    return Fit(
        sum(flops.num_params(config.model).values()),
        parts,
        device_lib.capacity(devices[0]),
        micro,
        config.train.num_steps * step_flops / rate.flops,
    )


def first_way(
    config: Config, devices: Sequence[jax.Device], measured: float | None
) -> tuple[dict[str, Any], Fit]:
    """The first of `_WAYS` by which a config fits, or that with the least memory; what it takes."""
    best = {}, fit(config, devices, measured)
    current = {name: value for name, value, _ in fields_lib.leaves(config)}
    for changes in _WAYS:
        way = {name: value for name, value in changes.items() if current[name] != value}
        try:
            found = fit(fields_lib.replace(config, way), devices, measured)
        except UserError:  # the batch or a width does not divide over that mesh
            continue
        if found.fits:
            return way, found
        best = min(best, (way, found), key=lambda pair: pair[1].num_bytes)
    return best


def several(configs: Mapping[str, Config | UserError], devices: Sequence[jax.Device]) -> Section:
    """A line for each config: what it takes, whether that is here, and how long it would train.

    One that does not fit is no problem: nobody has asked for it.
    """
    section = Section(
        f"what fits on {len(devices)} x {devices[0].device_kind}",
        ("config", "parameters", "memory", "fits", "time", "with"),
        pasted=False,
    )
    measured = _measured(devices[0])
    for name, config in configs.items():
        try:
            if isinstance(config, UserError):
                raise config
            way, found = first_way(config, devices, measured)
        except UserError as error:
            section.add(name, "", "", "no", "", str(error))
            continue
        section.add(
            name,
            count(found.num_params),
            size(found.num_bytes),
            "yes" if found.fits else "no",
            duration(found.seconds) if found.fits else "",
            " ".join(f"{k}={v}" for k, v in way.items()),
        )
    return section


def one(name: str, config: Config, devices: Sequence[jax.Device]) -> Section:
    """What a config takes, part by part; a problem where it is not here."""
    section = Section(f"does {name} fit on {len(devices)} x {devices[0].device_kind}?")
    measured = _measured(devices[0])
    asked = fit(config, devices, measured)
    way, found = first_way(config, devices, measured)
    section.add("parameters", count(asked.num_params))
    for part, num_bytes in asked.parts.items():
        section.add(f"memory for {part}", size(num_bytes))
    section.add("memory in all", f"{size(asked.num_bytes)} (estimate)")
    section.add("memory of a device", size(asked.capacity))
    section.add("rows at a time", f"{asked.micro_rows} of {config.train.global_batch_size}")
    section.add("fits", "yes" if asked.fits else "no")
    section.add("time", duration(found.seconds))
    if not asked.fits:
        flags = " ".join(f"--config.{k}={v}" for k, v in way.items())
        if found.fits:
            what = f"set {flags}"
        else:
            least = f", which even {flags} brings to {size(found.num_bytes)} only" if flags else ""
            what = f"take a smaller model, or more or larger devices{least}"
        section.problems.append(
            f"{name} takes about {size(asked.num_bytes)} on each device and there are "
            f"{size(asked.capacity)}; {what}"
        )
    return section


def _measured(device: jax.Device) -> float | None:
    if chips.peak_flops(device.device_kind) is not None:
        return None
    return machine.measured_rate(device)
