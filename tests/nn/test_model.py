"""What the whole model computes: parity with NumPy, no leaks, packing, padding, heads, dtypes."""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lmjax.families import weights
from lmjax.nn import heads
from lmjax.nn.model import Model

PACKED = ([5, 7, 4], [9, 3])  # the second row ends in padding


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_forward_is_the_papers(name):
    cfg = cases.config(**cases.CONFIGS[name])
    tree, data = cases.params(cfg), cases.batch(*PACKED)
    logits = Model(cfg, cases.VOCAB).apply({"params": tree}, data)
    np.testing.assert_allclose(logits, cases.numpy_forward(cfg, tree, data), atol=2e-4, rtol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_padding_gives_finite_outputs_and_gradients(dtype):
    cfg = cases.config()
    model, data = Model(cfg, cases.VOCAB, dtype), cases.batch([5], [], [16])

    def loss(tree):
        logits = model.apply({"params": tree}, data)
        return jnp.square(logits).sum(), logits

    grads, logits = jax.jit(jax.grad(loss, has_aux=True))(cases.params(cfg))
    assert logits.dtype == jnp.float32
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, logits)))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_bfloat16_is_near_float32(name):
    cfg = cases.config(**cases.CONFIGS[name])
    data, variables = cases.batch(*PACKED), {"params": cases.params(cfg)}
    exact = Model(cfg, cases.VOCAB).apply(variables, data)
    model = Model(cfg, cases.VOCAB, jnp.bfloat16)
    hidden, _ = model.apply(variables, data, method="trunk")
    assert hidden.dtype == jnp.bfloat16
    logits = model.apply(variables, data)
    assert np.abs(logits - exact).max() < 0.1 * np.abs(exact).max()


def test_positions_come_from_the_batch():
    cfg = cases.config()
    apply, variables = Model(cfg, cases.VOCAB).apply, {"params": cases.params(cfg)}
    data = cases.batch([16])
    shifted = dict(data, positions=data["positions"] + 7)
    assert np.abs(apply(variables, data) - apply(variables, shifted)).max() > 0.1


def test_an_id_or_position_outside_its_table_is_seen():
    cfg = cases.config()
    apply, variables = Model(cfg, cases.VOCAB).apply, {"params": cases.params(cfg)}
    for field, value in (("inputs", cases.VOCAB), ("positions", cfg.max_positions)):
        data = cases.batch([16])
        data[field][0, 15] = value
        assert np.isnan(apply(variables, data)[0, 15]).all()


def test_predicted_positions_are_gathered_before_the_head():
    cfg = cases.config()
    model, variables = Model(cfg, cases.VOCAB), {"params": cases.params(cfg)}
    data = cases.batch([16], [12])
    everywhere = model.apply(variables, data)
    data["predict_at"] = np.array([[3, 0, 15], [11, 11, 2]], np.int32)
    logits = model.apply(variables, data)
    assert logits.shape == (2, 3, cases.VOCAB)
    for b, at in enumerate(data["predict_at"]):
        np.testing.assert_allclose(logits[b], everywhere[b, at], atol=1e-5)
    hidden = jnp.ones((2, 16, 8))
    assert heads.predicted(hidden, cases.batch([16], [12])) is hidden


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_init_by_shapes_alone_names_every_axis(name):
    cfg = cases.config(**cases.CONFIGS[name])
    spec = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in cases.batch([16]).items()}
    abstract = jax.eval_shape(Model(cfg, cases.VOCAB).init, jax.random.key(0), spec)["params"]
    boxes = jax.tree.leaves(abstract, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    for box in boxes:
        assert isinstance(box, nn.LogicallyPartitioned)
        assert len(box.names) == len(box.value.shape)
        assert None not in box.names
        assert box.value.dtype == jnp.float32
    shapes = jax.tree.map(jnp.shape, nn.meta.unbox(abstract), is_leaf=lambda x: hasattr(x, "shape"))
    assert shapes == jax.tree.map(jnp.shape, cases.params(cfg))


def test_init_standard_deviations():
    cfg = cases.config(
        hidden_size=128,
        num_layers=8,
        init_std=0.02,
        init_residual_scale=True,
        tie_embeddings=False,
    )
    tree = nn.meta.unbox(jax.jit(Model(cfg, 512).init)(jax.random.key(0), cases.batch([16])))[
        "params"
    ]
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("bias"):
            assert not leaf.any(), name
        elif name.endswith("scale"):
            assert (leaf == 1).all(), name
        else:
            residual = name.endswith(("output/kernel", "down/kernel"))
            expected = 0.02 / 4 if residual else 0.02
            assert abs(leaf.std() / expected - 1) < 0.05, name
            assert abs(leaf.mean()) < expected / 20, name
    blocks = tree["stack"]["unit"]["0"]["mlp"]["up"]["kernel"]
    assert (blocks[0] != blocks[1]).any()


def test_positions_begin_behind_the_offset():
    plain, moved = cases.config(), cases.config(position_offset=2)
    tree, data = cases.params(moved), cases.batch(*PACKED)
    assert tree["embed"]["position"].shape == (34, 32)
    shorter = {**tree, "embed": {**tree["embed"], "position": tree["embed"]["position"][2:]}}
    apply = lambda cfg, params: _logits(Model(cfg, cases.VOCAB), params, data)
    assert (apply(moved, tree) == apply(plain, shorter)).all()
    data["positions"][0, 15] = 32
    assert np.isnan(apply(moved, tree)[0, 15]).all()


@pytest.mark.parametrize("tied", [True, False])
def test_a_frozen_bias_shifts_logits_and_is_not_trained(tied):
    cfg = cases.config(frozen_logits_bias=True, tie_embeddings=tied)
    data, bias = cases.batch(*PACKED), jnp.arange(cases.VOCAB, dtype=jnp.float32)
    tree = dict(cases.params(cfg))
    assert not tree["head_bias"].any()
    apply = lambda params: _logits(Model(cfg, cases.VOCAB), params, data)
    np.testing.assert_allclose(apply(tree | {"head_bias": bias}), apply(tree) + bias, atol=1e-4)
    loss = lambda params: jnp.sin(apply(params)).sum()
    grads = jax.jit(jax.grad(loss))(tree | {"head_bias": bias})
    assert not grads.pop("head_bias").any()
    assert all(leaf.any() for leaf in jax.tree.leaves(grads))


def test_an_encoder_with_a_matrix_of_tokens_of_its_own():
    fields = {"architecture": "encoder_decoder", "tie_embeddings": False, "num_layers": 1}
    shared, own = cases.config(**fields), cases.config(**fields, encoder_embeddings=True)
    data = cases.batch(*PACKED)
    data |= {f"enc_{name}": array for name, array in cases.batch(*PACKED, seed=1).items()}
    init = lambda cfg: jax.jit(Model(cfg, cases.VOCAB).init)(jax.random.key(0), data)
    tree, more = (nn.meta.unbox(init(cfg))["params"] for cfg in (shared, own))
    assert "token" not in tree["encoder_embed"]
    assert more["encoder_embed"]["token"].shape == (cases.VOCAB, 32)
    table = tree["embed"]["token"]
    both = {**tree, "encoder_embed": {**tree["encoder_embed"], "token": table}}
    apply = lambda cfg, params: _logits(Model(cfg, cases.VOCAB), params, data)
    assert (apply(own, both) == apply(shared, tree)).all()
    grads = jax.jit(jax.grad(lambda params: jnp.sin(apply(own, params)).sum()))(both)
    for side, read in (("embed", "inputs"), ("encoder_embed", "enc_inputs")):
        rows = np.flatnonzero(grads[side]["token"].any(-1))
        assert set(rows) == set(data[read].flatten())  # padding reads padding


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, data):
    return model.apply({"params": params}, data)


@pytest.mark.parametrize("field", ["attention_bias", "mlp_bias", "norm_bias"])
@pytest.mark.parametrize("wanted", [True, False])
def test_biases_of_one_kind_alone(field, wanted):
    cfg, plain = (cases.config(use_bias=not wanted, **more) for more in ({field: wanted}, {}))
    tree, other = (weights.flat(cases.params(c)) for c in (cfg, plain))
    block = ["attention/query", "attention/key", "attention/value", "attention/output"]
    block += ["mlp/up", "mlp/down", "attention_norm", "mlp_norm"]
    kind = {"attention_bias": block[:4], "mlp_bias": block[4:6], "norm_bias": block[6:]}[field]
    expected = {f"stack/unit/0/{name}/bias" for name in kind}
    if field == "norm_bias":
        expected.add("final_norm/bias")
    assert tree.keys() ^ other.keys() == expected
    # Biases of 0 are as good as none.
    full, full_cfg, bare_cfg = (tree, cfg, plain) if wanted else (other, plain, cfg)
    bare = {path: leaf for path, leaf in full.items() if path not in expected}
    zeros = bare | {path: jnp.zeros_like(full[path]) for path in expected}
    data = cases.batch(*PACKED)
    logits, moved, without = (
        _logits(Model(config, cases.VOCAB), weights.nested(leaves), data)
        for config, leaves in ((full_cfg, zeros), (full_cfg, full), (bare_cfg, bare))
    )
    np.testing.assert_allclose(logits, without, atol=1e-5)
    assert np.abs(moved - without).max() > 1e-3


def test_dropout():
    cfg = cases.config(dropout=0.3)
    model, data = Model(cfg, cases.VOCAB), cases.batch(*PACKED)
    variables = {"params": cases.params(cfg)}

    def hidden(key=None):
        rngs = {} if key is None else {"dropout": jax.random.key(key)}
        return model.apply(variables, data, deterministic=key is None, rngs=rngs, method="trunk")[0]

    assert (hidden(0) == hidden(0)).all()
    assert (hidden(0) != hidden(1)).any()
    plain = Model(cases.config(), cases.VOCAB).apply(variables, data, method="trunk")[0]
    assert (hidden() == plain).all()


def test_dropout_of_0_needs_no_key():
    cfg = cases.config()
    model, variables = Model(cfg, cases.VOCAB), {"params": cases.params(cfg)}
    data = cases.batch([16])
    on, off = (
        model.apply(variables, data, deterministic=d, method="trunk")[0] for d in (False, True)
    )
    assert (on == off).all()
