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
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from lmjax.config import MeshConfig
from lmjax.errors import UserError
from lmjax.parallel.rules import MESH_AXES, table

# The axis that takes the devices which the sizes leave, where a preset is not named after it.
_GROWS = {"fsdp_tensor_sequence": "fsdp", "hybrid": "fsdp"}


def axis_sizes(config: MeshConfig, num_devices: int, num_islands: int = 1) -> dict[str, int]:
    """Size of each axis of `MESH_AXES`: one axis of the preset takes what the others leave.

    Args:
      config: preset, and the sizes that are given.
      num_devices: of all islands.
      num_islands: groups of devices with a fast network inside, as `make_mesh` counts them.

    Raises:
      UserError: the sizes do not come to the number of devices.
    """
    grows = _GROWS.get(config.preset, config.preset)
    asked = dict(zip(MESH_AXES, (config.data, config.fsdp, config.tensor), strict=True))
    if config.preset == "fsdp_tensor_sequence":
        asked["tensor"] = asked["tensor"] or min(2, num_devices)
    elif config.preset == "hybrid":
        asked["data"] = asked["data"] or num_islands
    sizes = {axis: size or 1 for axis, size in asked.items()}
    if asked[grows] is None:
        sizes[grows] = max(num_devices // math.prod(sizes.values()), 1)
    total = math.prod(sizes.values())
    if total != num_devices:
        given = " x ".join(f"config.mesh.{axis}={size}" for axis, size in asked.items() if size)
        few = "more" if total < num_devices else "fewer"
        raise UserError(
            f"the mesh {_shape(sizes)} takes {total} devices and there are {few}: {num_devices}; "
            f"{given} must come to {num_devices}, or divide it with config.mesh.{grows} left out"
        )
    return sizes


def _shape(sizes: dict[str, int]) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1) or "of 1"


def _over_slices(sizes: dict[str, int], num_slices: int) -> dict[str, int]:
    """How many parts of each axis lie in different slices: all, of the outermost axis there is.

    Raises:
      UserError: that is `tensor`, or the slices do not divide it.
    """
    outermost = next((axis for axis, size in sizes.items() if size > 1), "tensor")
    if outermost == "tensor" or sizes[outermost] % num_slices:
        raise UserError(
            f"{num_slices} slices do not divide {outermost} of the mesh {_shape(sizes)}, and no "
            f"other axis may cross the slow network between them; set config.mesh.data to "
            f"{num_slices} or a multiple, or config.mesh.preset=hybrid"
        )
    return {axis: num_slices if axis == outermost else 1 for axis in sizes}


def _slices(devices: Sequence[jax.Device]) -> int:
    """Of TPUs, each with a fast network (ICI) of its own; 1 where devices know of none."""
    return len({getattr(device, "slice_index", None) for device in devices})


def _islands(devices: Sequence[jax.Device]) -> int:
    """Groups of devices with a fast network inside: slices or, but for TPUs, hosts."""
    slices = _slices(devices)
    if slices > 1 or devices[0].platform == "tpu":
        return slices
    return len({device.process_index for device in devices})


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices as a mesh with the axes `MESH_AXES`.

    Neighbours of the mesh, last axis first, are put on chips that are neighbours; of several slices
    the outermost axis alone goes from one to the next.

    Raises:
      UserError: from `axis_sizes`, or the slices do not divide the outermost axis.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = axis_sizes(config, len(devices), _islands(devices))
    # Auto: the compiler propagates shardings between the constraints that the modules set.
    types = (AxisType.Auto,) * len(MESH_AXES)
    slices = _slices(devices)
    if slices == 1:
        return jax.make_mesh(tuple(sizes.values()), MESH_AXES, axis_types=types, devices=devices)
    outer = _over_slices(sizes, slices)
    laid = mesh_utils.create_hybrid_device_mesh(
        [size // outer[axis] for axis, size in sizes.items()],
        list(outer.values()),
        devices,
        allow_split_physical_axes=True,  # only where it cannot be done without
    )
    return Mesh(laid, MESH_AXES, axis_types=types)


def device(mesh: Mesh) -> jax.Device:
    """One of the mesh's devices, of this host if any are; they are all of a kind."""
    return next(iter(mesh.local_devices), mesh.devices.flat[0])


@contextlib.contextmanager
def context(mesh: Mesh, config: MeshConfig) -> Iterator[None]:
    """Mesh and axis rules that tracing looks for; enter it around whatever runs a model."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(table(config)):
        yield
