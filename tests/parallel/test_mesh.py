import dataclasses

import jax
import numpy as np
import pytest
from flax import linen as nn

from lmjax import flops
from lmjax.config import MeshConfig
from lmjax.errors import UserError
from lmjax.parallel import rules
from lmjax.parallel.mesh import axis_sizes, make_mesh
from lmjax.parallel.rules import MESH_AXES


@pytest.mark.parametrize(
    ("fields", "devices", "sizes"),
    [
        ({}, 1, (1, 1, 1)),
        ({}, 8, (8, 1, 1)),
        ({"preset": "fsdp"}, 8, (1, 8, 1)),
        ({"preset": "fsdp", "tensor": 2}, 8, (1, 4, 2)),
        ({"preset": "tensor"}, 2, (1, 1, 2)),
        ({"fsdp": 2, "tensor": 2}, 8, (2, 2, 2)),
        ({"data": 2, "fsdp": 4}, 8, (2, 4, 1)),
        ({"preset": "fsdp_tensor_sequence"}, 8, (1, 4, 2)),
        ({"preset": "fsdp_tensor_sequence"}, 1, (1, 1, 1)),
        ({"preset": "fsdp_tensor_sequence", "data": 2, "tensor": 4}, 8, (2, 1, 4)),
        ({"preset": "hybrid"}, 8, (1, 8, 1)),
        ({"preset": "hybrid", "tensor": 2}, 8, (1, 4, 2)),
    ],
)
def test_the_preset_takes_what_the_sizes_leave(fields, devices, sizes):
    assert tuple(axis_sizes(MeshConfig(**fields), devices).values()) == sizes


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({}, (4, 16, 1)),
        ({"tensor": 4}, (4, 4, 4)),
        ({"data": 8}, (8, 8, 1)),
        ({"data": 1}, (1, 64, 1)),
    ],
)
def test_a_hybrid_mesh_has_rows_of_its_own_for_each_island(fields, sizes):
    config = MeshConfig(preset="hybrid", **fields)
    assert tuple(axis_sizes(config, 64, num_islands=4).values()) == sizes


@pytest.mark.parametrize(
    ("fields", "devices", "parts"),
    [
        ({"fsdp": 16}, 8, ["fsdp 16", "takes 16 devices", "fewer: 8", "config.mesh.fsdp=16"]),
        ({"tensor": 3}, 8, ["data 2 x tensor 3", "takes 6 devices", "more: 8"]),
        ({"data": 1}, 8, ["mesh of 1", "more: 8", "config.mesh.data"]),
        (
            {"preset": "fsdp_tensor_sequence"},
            3,
            ["tensor 2", "more: 3", "config.mesh.tensor=2 must", "config.mesh.fsdp left out"],
        ),
        (
            {"preset": "fsdp_tensor_sequence", "fsdp": 8},
            8,
            ["fsdp 8 x tensor 2", "fewer: 8", "config.mesh.fsdp=8 x config.mesh.tensor=2 must"],
        ),
        ({"preset": "hybrid", "fsdp": 4}, 8, ["fsdp 4", "more: 8", "config.mesh.fsdp=4"]),
    ],
)
def test_sizes_that_are_not_the_devices(fields, devices, parts):
    with pytest.raises(UserError) as caught:
        axis_sizes(MeshConfig(**fields), devices)
    for part in parts:
        assert part in str(caught.value)


@dataclasses.dataclass(frozen=True)
class Chip:
    """As much of a device as laying a mesh looks at."""

    id: int
    process_index: int
    slice_index: int | None = None
    platform: str = "cpu"
    device_kind: str = "chip"


def in_slices(num_slices, of=4, platform="cpu"):
    """Chips in an order that mixes the slices, two to a host."""
    ids = [s * of + i for i in range(of) for s in range(num_slices)]
    return [Chip(i, i // 2, i // of, platform) for i in ids]


def slices_along(mesh, axis):
    """How many slices are met by going along an axis from the first device."""
    line = np.moveaxis(mesh.devices, MESH_AXES.index(axis), 0)[:, 0, 0]
    return len({chip.slice_index for chip in line})


@pytest.mark.parametrize(
    ("fields", "shape", "crossing"),
    [
        ({"preset": "hybrid"}, (2, 4, 1), "data"),
        ({"preset": "hybrid", "tensor": 2}, (2, 2, 2), "data"),
        ({"preset": "hybrid", "data": 1}, (1, 8, 1), "fsdp"),
        ({}, (8, 1, 1), "data"),
        ({"preset": "fsdp"}, (1, 8, 1), "fsdp"),
        ({"preset": "fsdp", "data": 4}, (4, 2, 1), "data"),
        ({"preset": "fsdp_tensor_sequence"}, (1, 4, 2), "fsdp"),
        ({"preset": "tensor", "data": 2}, (2, 1, 4), "data"),
    ],
)
def test_only_the_outermost_axis_goes_from_slice_to_slice(fields, shape, crossing):
    mesh = make_mesh(MeshConfig(**fields), in_slices(2))
    assert mesh.devices.shape == shape
    assert len(set(mesh.devices.flat)) == 8
    for axis in MESH_AXES:
        assert slices_along(mesh, axis) == (2 if axis == crossing else 1), axis


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        (
            {"preset": "tensor"},
            ["3 slices", "tensor of the mesh tensor 12", "config.mesh.data to 3"],
        ),
        ({"preset": "fsdp", "data": 2}, ["3 slices", "data of the mesh data 2 x fsdp 6"]),
    ],
)
def test_slices_that_no_axis_may_cross(fields, parts):
    with pytest.raises(UserError) as caught:
        make_mesh(MeshConfig(**fields), in_slices(3))
    for part in parts:
        assert part in str(caught.value)


def test_without_slices_a_hybrid_mesh_goes_by_hosts():
    chips = [Chip(i, i // 2) for i in range(8)]
    mesh = make_mesh(MeshConfig(preset="hybrid"), chips)
    hosts = [[chip.process_index for chip in row] for row in mesh.devices[:, :, 0]]
    assert hosts == [[0, 0], [1, 1], [2, 2], [3, 3]]


def make(**fields):
    return make_mesh(MeshConfig(**fields), jax.devices()[:8])


def test_what_a_device_holds():
    mesh = make(fsdp=2, tensor=2)
    assert rules.split(mesh) == flops.Split(rows=4, state=4, tensor=2)
    along = rules.table(MeshConfig(preset="fsdp_tensor_sequence"))
    assert rules.split(mesh, along) == flops.Split(rows=4, state=4, tensor=2, sequence=2)
    assert list(rules.host_rows(rules.batch_sharding(mesh), 4, 2)) == list(range(8))
    assert rules.batch_sharding(make(preset="tensor")).shard_shape((6, 2)) == (6, 2)


def test_each_axis_splits_its_dims_once():
    def boxed(shape, *names):
        return nn.LogicallyPartitioned(np.zeros(shape), names)

    named = {
        "query": boxed((3, 16, 4, 8), "layers", "embed", "heads", "head_dim"),
        "transform": boxed((16, 16), "embed", "embed_out"),
        "bias": boxed((16,), "embed_out"),
        "up": boxed((16, 32), "embed", "mlp"),
        "up_bias": boxed((32,), "mlp"),
        "table": boxed((384, 16), "vocab", "embed"),
    }
    got = rules.state_shardings(named, make(fsdp=4, tensor=2))
    shapes = {name: got[name].shard_shape(named[name].value.shape) for name in named}
    assert shapes == {
        "query": (3, 4, 2, 8),
        "transform": (4, 16),
        "bias": (4,),
        "up": (4, 16),
        "up_bias": (4,),
        "table": (192, 4),
    }
    with pytest.raises(UserError, match=r"heads .* over tensor: 4 does not divide by 8"):
        rules.state_shardings(named, make(preset="tensor"))
