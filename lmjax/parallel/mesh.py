"""Devices to a mesh.

`jax.jit` over arrays with `NamedSharding`s is what `pjit` was; `jax.experimental.pjit.pjit` is a
deprecated name of it. One device is a mesh of one: there is no other code path.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import jax
from flax import linen as nn
from jax.sharding import AxisType, Mesh

from lmjax.config import MeshConfig
from lmjax.errors import UserError
from lmjax.parallel.rules import MESH_AXES, RULES


def axis_sizes(config: MeshConfig, num_devices: int) -> dict[str, int]:
    """Size of each axis of `MESH_AXES`: the axis of the preset takes what the others leave.

    Raises:
      UserError: the sizes do not come to the number of devices.
    """
    asked = dict(zip(MESH_AXES, (config.data, config.fsdp, config.tensor), strict=True))
    sizes = {axis: size or 1 for axis, size in asked.items()}
    if asked[config.preset] is None:
        sizes[config.preset] = max(num_devices // math.prod(sizes.values()), 1)
    total = math.prod(sizes.values())
    if total != num_devices:
        shape = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1)
        given = " x ".join(f"config.mesh.{axis}={size}" for axis, size in asked.items() if size)
        few = "more" if total < num_devices else "fewer"
        raise UserError(
            f"the mesh {shape or 'of 1'} takes {total} devices and there are {few}: {num_devices}; "
            f"{given} must come to {num_devices}, or divide it with config.mesh.{config.preset} "
            "left out"
        )
    return sizes


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices as a mesh with the axes `MESH_AXES`.

    `jax.make_mesh` puts neighbours of the mesh, last axis first, on chips that are neighbours.

    Raises:
      UserError: from `axis_sizes`.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = axis_sizes(config, len(devices))
    # Auto: the compiler propagates shardings between the constraints that the modules set.
    types = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh(
        tuple(sizes[axis] for axis in MESH_AXES), MESH_AXES, axis_types=types, devices=devices
    )


def device(mesh: Mesh) -> jax.Device:
    """One of the mesh's devices, of this host if any are; they are all of a kind."""
    return next(iter(mesh.local_devices), mesh.devices.flat[0])


@contextlib.contextmanager
def context(mesh: Mesh) -> Iterator[None]:
    """Mesh and axis rules that tracing looks for; enter it around whatever runs a model."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield
