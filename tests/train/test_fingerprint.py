"""A number that every changed bit changes, wherever the array lies."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lmjax.errors import UserError
from lmjax.train import fingerprint


@pytest.fixture
def tree():
    rng = np.random.default_rng(0)
    return {
        "params": {"kernel": rng.normal(size=(3, 16, 8)).astype(np.float32)},
        "half": jnp.asarray(rng.normal(size=(4, 8)), jnp.bfloat16),
        "counts": (rng.integers(0, 2**32, 8, np.uint32), np.int32(-5), np.array([True, False])),
    }


def plain(array):
    """The definition, in whole numbers and one element at a time."""
    bits = np.asarray(array)
    bits = bits.view(f"u{bits.dtype.itemsize}").ravel()
    return sum(int(b) * (i * 0x3C6EF362 + 1) for i, b in enumerate(bits)) % 2**32


def test_it_is_the_weighted_sum_of_the_bits(tree):
    found = fingerprint.of(tree)
    assert set(found) == {"params/kernel", "half", "counts/0", "counts/1", "counts/2"}
    for (_, array), value in zip(
        jax.tree_util.tree_leaves_with_path(tree),
        [found[name] for name in ("counts/0", "counts/1", "counts/2", "half", "params/kernel")],
        strict=True,
    ):
        assert value == plain(array)
    assert fingerprint.changed(tree, found) == []


def test_every_flipped_bit_and_every_exchange_is_seen(tree):
    recorded, rng = fingerprint.of(tree), np.random.default_rng(1)
    kernel = tree["params"]["kernel"]
    for _ in range(200):
        changed = kernel.copy()
        word = changed.view(np.uint32).ravel()
        word[rng.integers(word.size)] ^= np.uint32(1) << np.uint32(rng.integers(32))
        other = tree | {"params": {"kernel": changed}}
        assert fingerprint.changed(other, recorded) == ["params/kernel"]
    for _ in range(50):
        changed, (a, b) = kernel.copy(), rng.choice(kernel.size, 2, replace=False)
        flat = changed.ravel()
        flat[[a, b]] = flat[[b, a]]
        assert fingerprint.changed({"params": {"kernel": changed}}, recorded) == ["params/kernel"]


def test_the_layout_on_the_devices_does_not_matter(tree):
    mesh = jax.make_mesh((len(jax.devices()),), ("x",))
    for spec in (PartitionSpec(), PartitionSpec(None, "x"), PartitionSpec(None, None, "x")):
        laid = jax.device_put(tree["params"]["kernel"], NamedSharding(mesh, spec))
        assert fingerprint.of({"a": laid}) == {"a": plain(tree["params"]["kernel"])}


def test_a_device_that_holds_another_copy_is_named(tree):
    mesh = jax.make_mesh((len(jax.devices()),), ("x",))
    kernel, bad = tree["params"]["kernel"], jax.devices()[5]
    changed = kernel.copy()
    changed.view(np.uint32).ravel()[7] ^= 1 << 20
    copies = [jax.device_put(changed if d == bad else kernel, d) for d in mesh.devices]
    everywhere = NamedSharding(mesh, PartitionSpec())
    laid = jax.make_array_from_single_device_arrays(kernel.shape, everywhere, copies)
    sound = jax.device_put(kernel, everywhere)
    assert fingerprint.of({"a": sound}).keys() == {"a"}
    with pytest.raises(UserError, match=rf"{re.escape(str(bad))} holds another params/b than the"):
        fingerprint.of({"params": {"a": sound, "b": laid}})
