"""What is read of a checkpoint."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import tensorstore

from lmjax.train import guard, peaks
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.state import TrainState


def bytes_read():
    metrics = tensorstore.experimental_collect_matching_metrics(
        "/tensorstore/kvstore/file/bytes_read"
    )
    return sum(value["value"] for metric in metrics for value in metric["values"])


def test_parameters_are_restored_without_the_moments(tmp_path):
    rng = np.random.default_rng(0)
    params, *moments = (
        {"a": {"kernel": jnp.asarray(rng.normal(size=(500, 400)), jnp.float32)}} for _ in range(3)
    )
    scalars = {
        "window": {"nats": jnp.float32(1)},
        "peaks": peaks.zeros(),
        "tokens": jnp.zeros(2, jnp.uint32),
        "guard": guard.zeros(False),
    }
    state = TrainState(step=jnp.int32(3), params=params, opt_state=tuple(moments), **scalars)
    writer = Checkpoints(tmp_path / "checkpoints", keep=1)
    writer.save(3, state, {"seed": 7})
    writer.close()

    reader = Checkpoints(tmp_path / "checkpoints", read_only=True)
    abstract, shardings = jax.eval_shape(lambda: state), jax.tree.map(lambda x: x.sharding, state)
    before = bytes_read()
    restored = reader.restore_params(3, abstract.params, shardings.params)
    part = bytes_read() - before
    whole = reader.restore(3, abstract, shardings)
    assert part < 0.4 * (bytes_read() - before - part)
    for tree in (restored, whole.params):
        assert np.array_equal(tree["a"]["kernel"], params["a"]["kernel"])
    assert (reader.steps(), reader.meta(3)["seed"]) == ([3], 7)
    reader.close()


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    reader = Checkpoints(tmp_path / "none", read_only=True)
    assert reader.latest() is None
    reader.close()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_from_before_a_field_was_there_is_restored(tmp_path):
    """As one of lmjax before rows named their worst step."""
    counters = {"window": {"nats": jnp.float32(1)}, "tokens": jnp.zeros(2, jnp.uint32)}
    state = TrainState(
        step=jnp.int32(3),
        params={"kernel": jnp.ones((4, 5))},
        opt_state=(jnp.ones(3), {"count": jnp.int32(3)}),
        peaks={"value": jnp.ones(2), "step": jnp.ones(2, jnp.int32)},
        guard=guard.zeros(False),
        **counters,
    )
    fields = [(each.name, object) for each in dataclasses.fields(state) if each.name != "peaks"]
    older = flax.struct.dataclass(type("TrainState", (), {"__annotations__": dict(fields)}))
    writer = Checkpoints(tmp_path / "checkpoints", keep=1)
    writer.save(3, older(**{name: getattr(state, name) for name, _ in fields}), {})
    restored = writer.restore(
        3, jax.eval_shape(lambda: state), jax.tree.map(lambda x: x.sharding, state)
    )
    writer.close()
    expected = dataclasses.replace(state, peaks=peaks.zeros())
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    assert all(map(np.array_equal, jax.tree.leaves(restored), jax.tree.leaves(expected)))
