import jax
import numpy as np
import pytest
from flax import linen as nn

from lmjax import flops
from lmjax.config import MeshConfig
from lmjax.errors import UserError
from lmjax.parallel import rules
from lmjax.parallel.mesh import axis_sizes, make_mesh


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
    ],
)
def test_the_preset_takes_what_the_sizes_leave(fields, devices, sizes):
    assert tuple(axis_sizes(MeshConfig(**fields), devices).values()) == sizes


@pytest.mark.parametrize(
    ("fields", "devices", "parts"),
    [
        ({"fsdp": 16}, 8, ["fsdp 16", "takes 16 devices", "fewer: 8", "config.mesh.fsdp=16"]),
        ({"tensor": 3}, 8, ["data 2 x tensor 3", "takes 6 devices", "more: 8"]),
        ({"data": 1}, 8, ["mesh of 1", "more: 8", "config.mesh.data"]),
    ],
)
def test_sizes_that_are_not_the_devices(fields, devices, parts):
    with pytest.raises(UserError) as caught:
        axis_sizes(MeshConfig(**fields), devices)
    for part in parts:
        assert part in str(caught.value)


def make(**fields):
    return make_mesh(MeshConfig(**fields), jax.devices()[:8])


def test_what_a_device_holds():
    mesh = make(fsdp=2, tensor=2)
    assert rules.split(mesh) == flops.Split(rows=4, state=4, tensor=2)
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
