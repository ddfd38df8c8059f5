"""Every update rule: against plain NumPy from its paper, and blind to how layers are stacked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.config import OptimizerConfig
from lmjax.optim.optimizer import OPTIMIZERS, make_optimizer

AXES = {
    "query": {"kernel": ("layers", "embed", "heads", "head_dim")},
    "output": {"kernel": ("layers", "heads", "head_dim", "embed")},
    "mlp": {"kernel": ("layers", "embed", "mlp"), "bias": ("layers", "mlp")},
    "norm": {"scale": ("layers", "norm")},
    "embed": {"token": ("vocab", "embed")},
}
SHAPES = {
    "query": {"kernel": (3, 130, 4, 33)},
    "output": {"kernel": (3, 4, 33, 130)},
    "mlp": {"kernel": (3, 130, 40), "bias": (3, 40)},
    "norm": {"scale": (3, 130)},
    "embed": {"token": (200, 130)},
}
CONFIG = {"clip_norm": None, "weight_decay": 0.1, "learning_rate": 1.0, "beta2": 0.98}
RATE, STEPS = 0.01, 6
VARIANTS = {name: {} for name in OPTIMIZERS} | {
    "adamw uncorrected": {"name": "adamw", "bias_correction": False}
}


def is_axes(x):
    return isinstance(x, tuple)


def make(seed):
    """Layers of very different size: they must not see each other."""
    rng = np.random.default_rng(seed)

    def leaf(axes, shape):
        x = rng.normal(size=shape) * 0.3
        if axes[0] == "layers":
            x *= np.array([0.1, 1.0, 5.0]).reshape(-1, *[1] * (len(shape) - 1))
        return x.astype(np.float32)

    return jax.tree.map(leaf, AXES, SHAPES, is_leaf=is_axes)


def make_rule(variant):
    return OptimizerConfig(**{"name": variant, **CONFIG, **VARIANTS[variant]})


def trained(variant, axes, params, grads):
    optimizer = make_optimizer(make_rule(variant), lambda step: RATE, axes)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


@pytest.mark.parametrize("variant", VARIANTS)
def test_stacked_layers_are_a_list_of_single_ones(variant):
    params, grads = make(0), [make(seed) for seed in range(1, STEPS + 1)]
    together, _ = trained(variant, AXES, params, grads)

    def layer(tree, i):
        pick = lambda axes, x: x[i] if axes[0] == "layers" else x
        return jax.tree.map(pick, AXES, tree, is_leaf=is_axes)

    single = jax.tree.map(
        lambda axes: tuple(n for n in axes if n != "layers"), AXES, is_leaf=is_axes
    )
    for i in range(3):
        alone, _ = trained(variant, single, layer(params, i), [layer(g, i) for g in grads])
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(layer(together, i)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def rms(x):
    return np.sqrt((x**2).mean())


def orthogonal(x):
    """Five quintic Newton-Schulz steps of Jordan's Muon on a matrix."""
    x = x / np.linalg.norm(x)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x


def reference(variant, param, grads, decay, *, matrix):
    """One layer's parameter, in float64, as the papers have it."""
    config, p = make_rule(variant), np.array(param, np.float64)
    b1, b2, eps = config.beta1, config.beta2, config.epsilon
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(np.asarray(grads, np.float64), 1):
        if config.name == "lion":
            u = np.sign(b1 * m + (1 - b1) * g)
            m = b2 * m + (1 - b2) * g
            p = p - RATE * (u + decay * p)
            continue
        if config.name == "muon" and matrix:
            mu = config.momentum
            m = mu * m + (1 - mu) * g
            ahead = mu * m / (1 - mu ** (t + 1)) + (1 - mu) * g / (1 - mu**t)
            u = 0.2 * np.sqrt(max(p.shape)) * orthogonal(ahead)
            p = p - RATE * (u + decay * p)
            continue
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        if not config.bias_correction:
            m_hat, v_hat = m, v
        u, rate = m_hat / (np.sqrt(v_hat) + eps), RATE
        if config.name == "adamw_rms":
            u = u * max(rms(p), 1e-3)
        if config.name == "stable_adamw":
            rate = RATE / max(1.0, np.sqrt((g**2 / np.maximum(v_hat, eps**2)).mean()))
        p = p - rate * (u + decay * p)
    return p


def layers_of(tree, group, leaf):
    """A parameter as the matrices or vectors of single layers that the papers speak of."""
    x = np.asarray(tree[group][leaf])
    if group == "query":
        x = x.reshape(3, 130, -1)
    return x[None] if group == "embed" else x


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "adafactor"])
@pytest.mark.parametrize(
    ("group", "leaf", "decay"),
    [("query", "kernel", 0.1), ("mlp", "bias", 0.0), ("embed", "token", 0.1)],
)
def test_rules_follow_their_papers(variant, group, leaf, decay):
    params, grads = make(0), [make(seed) for seed in range(1, STEPS + 1)]
    got, _ = trained(variant, AXES, params, grads)
    starts, ends = layers_of(params, group, leaf), layers_of(got, group, leaf)
    gradients = [layers_of(g, group, leaf) for g in grads]
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        expected = reference(
            variant, start, [g[i] for g in gradients], decay, matrix=group == "query"
        )
        np.testing.assert_allclose(end, expected, rtol=2e-4, atol=2e-5)


def test_muon_keeps_one_moment_inside_the_layers():
    _, state = trained("muon", AXES, make(0), [make(1)])
    sizes = sum(x.size for x in jax.tree.leaves(state) if x.ndim > 1)
    inside = sum(np.prod(SHAPES[k]["kernel"]) for k in ("query", "output", "mlp"))
    outside = 200 * 130 + 3 * 40 + 3 * 130
    assert sizes == inside + 2 * outside
