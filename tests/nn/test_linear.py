"""Linear maps: their own way back against JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.nn.linear import Linear


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("inputs", "features"),
    [((6,), (9,)), ((9,), (6,)), ((6,), (2, 5)), ((2, 5), (6,)), ((2, 5), (3, 7))],
    ids=["wider", "narrower", "to heads", "from heads", "from heads to heads"],
)
def test_value_and_gradients_are_jaxs(inputs, features, dtype):
    axes = ("embed", "mlp", "heads", "head_dim")[: len(inputs) + len(features)]
    linear = Linear(features, axes, jax.nn.initializers.normal(1.0), use_bias=True, dtype=dtype)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 4, *inputs)), dtype)
    weights = jnp.asarray(rng.normal(size=(3, 4, *features)), dtype)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype),
        jax.eval_shape(lambda: linear.init(jax.random.key(0), x))["params"],
    )

    def plain(params, x):
        kernel, bias = (params[name].unbox().astype(dtype) for name in ("kernel", "bias"))
        return jnp.tensordot(x, kernel, len(inputs)) + bias

    ours = lambda params, x: linear.apply({"params": params}, x)
    summed = lambda f: lambda *given: jnp.sum((f(*given) * weights).astype(jnp.float32))
    found, expected = (
        jax.value_and_grad(summed(f), argnums=(0, 1))(params, x) for f in (ours, plain)
    )
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for mine, jaxs in leaves:
        assert mine.dtype == jaxs.dtype
        tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
        np.testing.assert_allclose(
            mine.astype(jnp.float32), jaxs.astype(jnp.float32), rtol=tolerance, atol=tolerance
        )
