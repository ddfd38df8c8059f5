import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.config import OptimizerConfig
from lmjax.errors import UserError
from lmjax.optim.optimizer import make_optimizer, weight_decay_policy
from lmjax.optim.policy import match, name_of


def reference_adamw(params, grads_per_step, config, rates):
    """AdamW as in Loshchilov and Hutter 2019, algorithm 2, one array at a time, in float64."""
    params = {k: np.array(v, np.float64) for k, v in params.items()}
    m = {k: np.zeros_like(v) for k, v in params.items()}
    v = {k: np.zeros_like(x) for k, x in params.items()}
    for t, (grads, rate) in enumerate(zip(grads_per_step, rates, strict=True), 1):
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        scale = min(1.0, config.clip_norm / norm)
        for k in params:
            g = grads[k] * scale
            m[k] = config.beta1 * m[k] + (1 - config.beta1) * g
            v[k] = config.beta2 * v[k] + (1 - config.beta2) * g**2
            m_hat = m[k] / (1 - config.beta1**t)
            v_hat = v[k] / (1 - config.beta2**t)
            decay = 0.0 if k in ("a/bias", "norm/scale") else config.weight_decay
            params[k] -= rate * (m_hat / (np.sqrt(v_hat) + config.epsilon) + decay * params[k])
    return params


def test_adamw_follows_its_paper():
    rng = np.random.default_rng(0)
    shapes = {"a/kernel": (3, 4), "a/bias": (4,), "norm/scale": (4,)}
    flat = {k: rng.normal(size=s) for k, s in shapes.items()}
    grads = [{k: 3 * rng.normal(size=s) for k, s in shapes.items()} for _ in range(12)]

    def nest(tree):
        nested = {}
        for name, value in tree.items():
            group, leaf = name.split("/")
            nested.setdefault(group, {})[leaf] = jnp.asarray(value, jnp.float32)
        return nested

    config = OptimizerConfig(clip_norm=2.0, weight_decay=0.3, learning_rate=1.0)
    rates = [0.01 * (i + 1) for i in range(12)]
    optimizer = make_optimizer(config, lambda step: 0.01 * (step + 1), axes=None)
    params, step = nest(flat), jax.jit(optimizer.update)
    state = optimizer.init(params)
    for g in grads:
        updates, state = step(nest(g), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    expected = reference_adamw(flat, grads, config, rates)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        np.testing.assert_allclose(leaf, expected[name_of(path)], rtol=1e-5, atol=1e-6)


def test_policy_takes_the_first_match_and_refuses_none():
    policy = (("stack/.*", 0.5), (".*/kernel", 0.1))
    assert match(policy, "stack/unit/0/kernel", "x") == 0.5
    assert match(policy, "embed/kernel", "x") == 0.1
    with pytest.raises(UserError, match=r"config\.optimizer\.weight_decay.*embed/bias"):
        match(policy, "embed/bias", "optimizer.weight_decay")


def test_a_single_decay_spares_biases_norms_and_positions():
    policy = weight_decay_policy(0.1)
    for name in ("stack/unit/0/mlp/up/bias", "final_norm/scale", "embed/position"):
        assert match(policy, name, "x") == 0.0
    for name in ("stack/unit/0/mlp/up/kernel", "embed/token"):
        assert match(policy, name, "x") == 0.1
