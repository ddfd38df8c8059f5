"""Topologies by name, with stand-ins for devices that are not here."""

import importlib.util

import jax
import pytest

from lmjax import chips
from lmjax.errors import UserError
from lmjax.plan import topology


@pytest.mark.parametrize(
    ("name", "number", "kind", "domains"),
    [
        ("v5e:4x4", 16, "TPU v5 lite", {0}),
        ("v5p:2x2x2", 8, "TPU v5", {0}),
        ("3xv6e:2x2", 12, "TPU v6 lite", {0, 1, 2}),
        ("h100:16", 16, "NVIDIA H100 80GB HBM3", {0, 1}),
        ("cpu:8", 8, "cpu", {0}),
    ],
)
def test_stand_ins(name, number, kind, domains):
    made = topology.make(name, analytic=True)
    assert len(made.devices) == number == len({device.id for device in made.devices})
    assert {device.device_kind for device in made.devices} == {kind}
    assert set(made.domains) == domains
    assert made.why_not
    if made.chip is not None:
        assert chips.of(kind) is made.chip
        assert made.capacity == made.chip.memory
        assert made.peak == number * made.chip.flops


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("v9:4x4", r"is not known; write v5e:4x4, .*h100:8, .*cpu:8"),
        ("v5e", "is not known"),
        ("v5e:4,4", "is not known"),
        ("v5e:0x4", "has no devices"),
        ("v5e:4x4x4", "a v5e slice has 2 dims; write for example v5e:4x4"),
        ("v5p:4x4", "a v5p slice has 3 dims; write for example v5p:4x4x4"),
        ("h100:4x4", "only TPUs have a shape and slices; write h100:8"),
        ("2xcpu:8", "only TPUs have"),
    ],
)
def test_what_is_no_topology(name, cause):
    with pytest.raises(UserError, match=cause):
        topology.make(name)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is there")
def test_without_libtpu_the_extra_is_named():
    with pytest.raises(
        UserError, match=r"v5e:4x4 needs libtpu .*lmjax\[tpu\].* or give --analytic"
    ):
        topology.make("v5e:4x4")


def test_a_stand_in_says_that_it_is_not_here():
    (device,) = topology.make("a100:1").devices
    with pytest.raises(jax.errors.JaxRuntimeError, match="not here"):
        device.memory_stats()
