"""Norms and activations by themselves: their own gradients are those of autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.nn.mlp import ACTIVATIONS
from lmjax.nn.norm import Norm

PLAIN = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_its_derivatives(name):
    x = jnp.linspace(-6, 6, 101, dtype=jnp.float32)
    f, plain = ACTIVATIONS[name], PLAIN[name]
    np.testing.assert_allclose(f(x), plain(x), atol=1e-6)
    for derive in (jax.grad, lambda g: jax.grad(jax.grad(g))):
        ours, theirs = (jax.vmap(derive(g))(x) for g in (f, plain))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert f(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_norm_and_its_gradient(kind, use_bias):
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(2, 3, (2, 5, 16)), jnp.float32) for _ in range(2))
    norm = Norm(kind, 1e-5, use_bias, jnp.float32)
    names = ["scale"] + ["bias"] * (use_bias and kind == "layernorm")
    params = {n: jnp.asarray(rng.normal(size=16), jnp.float32) for n in names}
    assert set(norm.init(jax.random.key(0), x)["params"]) == set(params)

    def plain(params, x):
        if kind == "layernorm":
            x = x - x.mean(-1, keepdims=True)
        x = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * params["scale"] + params.get("bias", 0)

    ours = lambda params, x: norm.apply({"params": params}, x)
    np.testing.assert_allclose(ours(params, x), plain(params, x), atol=1e-5)
    grads = [
        jax.grad(lambda p, x, f=f: (f(p, x) * weight).sum(), argnums=(0, 1))(params, x)
        for f in (ours, plain)
    ]
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


def test_norm_has_float32_statistics():
    x = (1000 + jnp.arange(64.0)).astype(jnp.bfloat16)[None]
    y = Norm("layernorm", 1e-5, True, jnp.bfloat16).apply(
        {"params": {"scale": jnp.ones(64), "bias": jnp.zeros(64)}}, x
    )
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean()) / exact.std()
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float64), exact, atol=0.01)
