"""Devices to a mesh.

`jax.jit` over arrays with `NamedSharding`s is what `pjit` was; `jax.experimental.pjit.pjit` is a
deprecated name of it. One device is a mesh of one: there is no other code path.
"""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from lmjax.parallel.rules import MESH_AXES


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """All devices along the data axis; the other axes of `MESH_AXES` have size 1."""
    devices = jax.devices() if devices is None else devices
    shape = (len(devices),) + (1,) * (len(MESH_AXES) - 1)
    # Auto: the compiler propagates shardings between the constraints that the modules set.
    return Mesh(np.array(devices).reshape(shape), MESH_AXES, (AxisType.Auto,) * len(MESH_AXES))
