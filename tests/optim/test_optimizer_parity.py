"""Twenty steps beside the optimizers of PyTorch and transformers; needs the extra [parity]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.config import OptimizerConfig
from lmjax.optim.optimizer import make_optimizer

pytestmark = [
    pytest.mark.parity,
    # 2026-11: third-party imports warn (torch, transformers on Python 3.11).
    pytest.mark.filterwarnings("ignore"),
]

AXES = {"dense": {"kernel": ("embed", "mlp"), "bias": ("mlp",)}}
SHAPES = {"dense": {"kernel": (160, 192), "bias": (192,)}}


def make(seed):
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(size=shape).astype(np.float32)
    return jax.tree.map(draw, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def ours(config):
    optimizer = make_optimizer(config, lambda step: config.learning_rate, AXES)
    params = make(0)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for seed in range(1, 21):
        updates, state = update(make(seed), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def theirs(make_optimizer):
    torch = pytest.importorskip("torch")
    params = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in make(0)["dense"].items()}
    optimizer = make_optimizer(params)
    for seed in range(1, 21):
        for name, grad in make(seed)["dense"].items():
            params[name].grad = torch.tensor(grad)
        optimizer.step()
    return {k: v.detach().numpy() for k, v in params.items()}


def assert_same(got, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(got["dense"][name], value, rtol=1e-5, atol=1e-5)


def test_adamw():
    torch = pytest.importorskip("torch")
    expected = theirs(
        lambda params: torch.optim.AdamW(
            [
                {"params": [params["kernel"]], "weight_decay": 0.1},
                {"params": [params["bias"]], "weight_decay": 0.0},
            ],
            lr=0.01,
            betas=(0.9, 0.95),
            eps=1e-8,
        )
    )
    assert_same(ours(OptimizerConfig(clip_norm=None, learning_rate=0.01)), expected)


def test_adafactor():
    optimization = pytest.importorskip("transformers.optimization")
    expected = theirs(
        lambda params: optimization.Adafactor(
            list(params.values()), lr=0.01, relative_step=False, warmup_init=False
        )
    )
    config = OptimizerConfig(name="adafactor", clip_norm=None, learning_rate=0.01, weight_decay=0.0)
    assert_same(ours(config), expected)
