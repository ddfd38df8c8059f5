"""One number for each array of a state, which any changed bit changes.

The bits of each element as an unsigned integer, times an odd weight that its place decides, summed
modulo 2^32. An odd weight is invertible, so a change of a single element, whatever it is, always
changes the sum; exchanged elements do too, by their places. Integer sums have no order, so the
number is the same however the array lies on the devices, and is computed where it lies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.errors import UserError

_SPREAD = 0x3C6EF362  # even, so that weights are odd, and all different: 2 * (2^32 / golden ratio)


def of(tree: Any) -> dict[str, int]:
    """The fingerprint of every array of a tree of at most 32-bit numbers, by its path.

    Raises:
      UserError: devices that hold copies of the same array do not agree.
    """
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    # Every device computes them from its own copy.
    copies = {shard.device: np.asarray(shard.data) for shard in _of(tree).addressable_shards}
    (common, _), *others = Counter(copy.tobytes() for copy in copies.values()).most_common()
    if others:
        device, wrong = next((d, c) for d, c in copies.items() if c.tobytes() != common)
        name = names[np.flatnonzero(wrong != np.frombuffer(common, wrong.dtype))[0]]
        raise UserError(
            f"{device} holds another {name} than the other devices: its memory or the links to it "
            "fail, and nothing was saved; run the same command again without it"
        )
    return dict(zip(names, np.frombuffer(common, np.uint32).tolist(), strict=True))


def changed(tree: Any, recorded: Mapping[str, int]) -> list[str]:
    """Paths of the arrays of a tree that are not what was recorded of them."""
    return [name for name, value in of(tree).items() if recorded.get(name, value) != value]


@jax.jit
def _of(tree: Any) -> jax.Array:
    """uint32 [leaves]."""
    return jnp.stack([_of_array(leaf) for leaf in jax.tree.leaves(tree)])


def _of_array(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for dim, size in enumerate(x.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, dim)
    return jnp.sum(bits * (place * jnp.uint32(_SPREAD) + jnp.uint32(1)), dtype=jnp.uint32)


def _name(path: tuple) -> str:
    """The keys that lead to a leaf as "params/embed/token", whatever containers they pass."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
