"""Cross-entropy by chunks: value and gradient of the plain one, and no logits as a whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.nn.heads import Projected, logits
from lmjax.train.chunked import cross_entropy

B, P, D, V = 4, 13, 16, 50
Z_LOSS = 1e-2


def make(dtype=jnp.float32, bias=True):
    keys = jax.random.split(jax.random.key(0), 5)
    features_BPD = jax.random.normal(keys[0], (B, P, D)).astype(dtype)
    matrix_VD = jax.random.normal(keys[1], (V, D))
    bias_V = jax.random.normal(keys[2], (V,)) if bias else None
    targets_BP = jax.random.randint(keys[3], (B, P), 0, V)
    weights_BP = jax.random.uniform(keys[4], (B, P)).at[:, 3].set(0)
    return Projected(features_BPD, matrix_VD, bias_V), targets_BP, weights_BP


def plain(projected, targets_BP, weights_BP):
    logits_BPV = logits(projected)
    log_z_BP = jax.nn.logsumexp(logits_BPV, axis=-1)
    target_BP = jnp.sum(logits_BPV * jax.nn.one_hot(targets_BP, V), axis=-1)
    nats_BP = log_z_BP - target_BP
    cost = jnp.sum(weights_BP * (nats_BP + Z_LOSS * log_z_BP**2))
    return cost, nats_BP, jnp.argmax(logits_BPV, axis=-1) == targets_BP


def differentiated(loss, projected, *rest):
    def scaled(projected):
        cost, nats_BP, correct_BP = loss(projected, *rest)
        return 3.0 * cost, (cost, nats_BP, correct_BP)  # the way back is told of the factor

    return jax.jit(jax.value_and_grad(scaled, has_aux=True))(projected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("chunk", "shards"), [(1, 1), (4, 1), (5, 2), (13, 4), (64, 1)])
def test_values_and_gradients_are_the_plain_ones(chunk, shards, bias):
    given = make(bias=bias)
    by_chunks = lambda *args: cross_entropy(*args, Z_LOSS, chunk, shards)
    (_, (cost, nats_BP, correct_BP)), grads = differentiated(by_chunks, *given)
    (_, (plain_cost, plain_nats_BP, plain_correct_BP)), plain_grads = differentiated(plain, *given)
    np.testing.assert_allclose(cost, plain_cost, rtol=1e-5)
    np.testing.assert_allclose(nats_BP, plain_nats_BP, rtol=1e-5, atol=1e-5)
    assert (correct_BP == plain_correct_BP).all()
    assert jax.tree.structure(grads) == jax.tree.structure(plain_grads)
    for mine, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(plain_grads), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
    evaluated = jax.jit(by_chunks)(*given)  # without gradients
    np.testing.assert_allclose(evaluated[0], plain_cost, rtol=1e-5)


def test_half_precision_is_as_near_to_the_truth_as_the_plain_one():
    """Products in bfloat16, sums in float32."""
    given = make(jnp.bfloat16)
    exact = Projected(given[0].features_BPD.astype(jnp.float32), *given[0][1:])
    _, truth = differentiated(plain, exact, *given[1:])
    _, theirs = differentiated(plain, *given)
    _, mine = differentiated(lambda *args: cross_entropy(*args, Z_LOSS, 4, 2), *given)
    for got, other, true in zip(*map(jax.tree.leaves, (mine, theirs, truth)), strict=True):
        assert got.dtype == other.dtype
        mine_off, theirs_off = (np.abs(np.float32(x) - true).max() for x in (got, other))
        assert mine_off <= 2 * theirs_off + 1e-3 * np.abs(true).max()


def test_no_logits_as_a_whole():
    given = make()
    loss = lambda projected, chunk: cross_entropy(projected, *given[1:], 0.0, chunk, 1)[0]
    for chunk, whole in ((4, False), (13, True)):
        text = jax.jit(jax.grad(functools.partial(loss, chunk=chunk))).lower(given[0]).as_text()
        assert (f"x13x{V}xf32" in text) == whole
        assert f"x{chunk}x{V}xf32" in text
