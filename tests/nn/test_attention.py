"""Attention by itself: grouped heads, windows, ALiBi, biases, its own gradient."""

import math

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.nn.attention import AttentionSpec, KeyValues, Tokens, attend
from lmjax.nn.kernels.spec import How
from lmjax.nn.model import Model
from lmjax.nn.position import alibi_slopes


@pytest.fixture(params=["xla", "blockwise"])
def how(request):
    return How(request.param)


def _inputs(length=12, heads=4, kv_heads=4, seed=0):
    rng = np.random.default_rng(seed)
    q, k, v = (
        jnp.asarray(rng.normal(size=(2, length, n, 8)), jnp.float32)
        for n in (heads, kv_heads, kv_heads)
    )
    data = cases.batch([7, 5], [8], length=length)
    return q, KeyValues(k, v), Tokens(data["segment_ids"], data["positions"])


def test_grouped_heads_equal_repeated_heads():
    cfg = cases.config(num_kv_heads=2)
    tree, data = cases.params(cfg), cases.batch([9, 7])
    full = jax.tree.map(lambda a: a, tree)
    attention = full["stack"]["unit"]["0"]["attention"]
    for name in ("key", "value"):
        attention[name] = {
            "kernel": jnp.repeat(attention[name]["kernel"], 2, axis=2),
            "bias": jnp.repeat(attention[name]["bias"], 2, axis=1),
        }
    grouped = Model(cfg, cases.VOCAB).apply({"params": tree}, data)
    repeated = Model(cases.config(), cases.VOCAB).apply({"params": full}, data)
    np.testing.assert_allclose(grouped, repeated, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 4, 5])
def test_what_is_seen(causal, window, how):
    q, kv, tokens = _inputs()
    spec = AttentionSpec(causal, window, how=how)
    # The gradient of output t with respect to value s is the probability of s.
    out = lambda v: attend(spec, q, KeyValues(kv.k_BSGK, v), tokens, tokens, None, None).sum(-1)
    p = np.asarray(jax.jacrev(out)(kv.v_BSGK))  # [B, T, H, B, S, G, K]
    for b, t, s in np.ndindex(2, 12, 12):
        segment, position = tokens.segment_ids[b], tokens.positions[b]
        distance = position[t] - position[s]
        sees = segment[t] == segment[s]
        sees &= not causal or distance >= 0
        sees &= window is None or abs(distance) <= window // 2
        assert (p[b, t, :, b, s].any(axis=(-1, -2)) == sees).all(), (b, t, s)


@pytest.mark.parametrize("causal", [True, False])
def test_gradient_is_autodiffs(causal, how):
    q, kv, tokens = _inputs(heads=4, kv_heads=2)
    spec = AttentionSpec(causal, how=how)

    def plain(q, kv):
        k, v = (jnp.repeat(a, 2, axis=2) for a in kv)
        see = np.asarray(tokens.segment_ids)[:, :, None] == tokens.segment_ids[:, None, :]
        if causal:
            see = see & (tokens.positions[:, :, None] >= tokens.positions[:, None, :])
        s = jnp.where(see[:, None], jnp.einsum("bthk,bshk->bhts", q, k), -1e9)
        return jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(s), v)

    ours = lambda q, kv: attend(spec, q, kv, tokens, tokens, None, None)
    loss = lambda f: jax.grad(lambda q, kv: jnp.sin(f(q, kv)).sum(), argnums=(0, 1))
    for a, b in zip(*(jax.tree.leaves(loss(f)(q, kv)) for f in (ours, plain)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_query_without_keys_is_finite(how):
    q, kv, tokens = _inputs()
    nothing = Tokens(tokens.segment_ids * 0 + 9, tokens.positions)
    f = lambda q, kv: attend(AttentionSpec(True, how=how), q, kv, tokens, nothing, None, None).sum()
    value, grads = jax.value_and_grad(f, argnums=(0, 1))(q, kv)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, grads)))


def _published_slopes(n):
    """`get_slopes` of the authors' code (github.com/ofirpress/attention_with_linear_biases)."""
    if math.log2(n).is_integer():
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]
    below = 2 ** math.floor(math.log2(n))
    return _published_slopes(below) + _published_slopes(2 * below)[0::2][: n - below]


@pytest.mark.parametrize("heads", range(1, 17))
def test_alibi_slopes_are_the_authors(heads):
    np.testing.assert_allclose(alibi_slopes(heads), _published_slopes(heads), rtol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2)])
def test_alibi_is_a_bias_by_distance(causal, heads, kv_heads, how):
    q, kv, tokens = _inputs(heads=heads, kv_heads=kv_heads)
    k, v = (jnp.repeat(a, heads // kv_heads, axis=2) for a in kv)
    segment, position = (np.asarray(a) for a in tokens)
    see = segment[:, :, None] == segment[:, None]
    if causal:
        see &= position[:, :, None] >= position[:, None]
    distance = abs(position[:, :, None] - position[:, None])
    bias = -np.asarray(_published_slopes(heads))[:, None, None] * distance[:, None]

    def dense(q):
        s = jnp.einsum("bthk,bshk->bhts", q, k) + bias
        p = jax.nn.softmax(jnp.where(see[:, None], s, -1e9))
        return jnp.einsum("bhts,bshk->bthk", p, v)

    spec = AttentionSpec(causal, alibi=True, how=how)
    ours = lambda q: attend(spec, q, kv, tokens, tokens, None, None)
    np.testing.assert_allclose(jax.jit(ours)(q), jax.jit(dense)(q), atol=1e-5)
    grads = (jax.jit(jax.grad(lambda q, f=f: jnp.sin(f(q)).sum()))(q) for f in (ours, dense))
    np.testing.assert_allclose(*grads, atol=1e-5)
