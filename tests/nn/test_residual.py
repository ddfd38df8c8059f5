"""How what goes from block to block lies on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import make_model, sequence

from lmjax.config import MeshConfig
from lmjax.nn import residual
from lmjax.parallel import mesh as mesh_lib


def on_a_mesh(preset, f, *args):
    """What a jitted function gives on eight devices: rows over two, the rest over four."""
    config = MeshConfig(preset=preset, data=2, tensor=4)
    mesh = mesh_lib.make_mesh(config, jax.devices()[:8])
    with mesh_lib.context(mesh, config):
        # Afresh: `jax.jit` would not see that the same mesh has other rules.
        return jax.jit(lambda *args: f(*args))(*args)


@pytest.mark.parametrize(
    ("preset", "length", "here"),
    [
        ("fsdp_tensor_sequence", 12, (2, 3, 4)),
        ("fsdp_tensor_sequence", 114, (2, 114, 4)),  # does not divide
        ("fsdp_tensor_sequence", 1, (2, 1, 4)),
        ("data", 12, (2, 12, 4)),
    ],
)
def test_positions_are_split_where_they_divide(preset, length, here):
    x_BTD = on_a_mesh(preset, residual.constrained, jnp.ones((4, length, 4)))
    assert {shard.data.shape for shard in x_BTD.addressable_shards} == {here}


def test_without_a_mesh_nothing_is_done():
    x_BTD = jnp.arange(24.0).reshape(2, 3, 4)
    assert jax.jit(residual.constrained)(x_BTD).tolist() == x_BTD.tolist()


@pytest.mark.parametrize(
    "head",
    [
        {"head": "pooled"},
        {"head": "pooled", "classifier_pooling": "mean"},
        {"head": "token"},
        {"head": "span"},
    ],
    ids=str,
)
def test_heads_see_the_whole_row(head):
    model, params = make_model("bert", num_labels=3, **head)
    row = sequence("bert", [7, 3], padding=2)
    batch = {name: jnp.tile(field, (4, 1)) for name, field in row.items()}
    if head == {"head": "pooled"}:
        batch["predict_at"] = jnp.full((4, 1), 5, jnp.int32)
    apply = lambda params, batch: model.apply({"params": params}, batch)
    logits = on_a_mesh("fsdp_tensor_sequence", apply, params, batch)
    np.testing.assert_allclose(logits, jax.jit(apply)(params, batch), rtol=1e-5, atol=1e-5)
