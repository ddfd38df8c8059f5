import jax
import jax.numpy as jnp
import numpy as np

from lmjax.optim.adafactor import scale_by_adafactor

AXES = {
    "query": ("layers", "embed", "heads", "head_dim"),
    "output": ("layers", "heads", "head_dim", "embed"),
    "narrow": ("layers", "embed", "mlp"),
    "scale": ("layers", "norm"),
    "table": ("vocab", "embed"),
}
SHAPES = {
    "query": (3, 160, 4, 48),
    "output": (3, 4, 48, 160),
    "narrow": (3, 160, 100),
    "scale": (3, 160),
    "table": (200, 160),
}


def reference(params, grads_per_step):
    """Plain T5X Adafactor for a single 2-D or 1-D parameter, in float64."""
    p = np.array(params, np.float64)
    factored = p.ndim == 2 and min(p.shape) >= 128
    rows = cols = full = 0.0
    for t, g in enumerate(grads_per_step, 1):
        beta = 1 - t**-0.8
        sq = np.float64(g) ** 2 + 1e-30
        if factored:
            rows = beta * rows + (1 - beta) * sq.mean(1)
            cols = beta * cols + (1 - beta) * sq.mean(0)
            u = g * (rows / rows.mean())[:, None] ** -0.5 * cols[None, :] ** -0.5
        else:
            full = beta * full + (1 - beta) * sq
            u = g / np.sqrt(full)
        u = u / max(1.0, np.sqrt((u**2).mean()))
        p = p - 0.01 * u * max(np.sqrt((p**2).mean()), 1e-3)
    return p


def single_layers(name, array):
    """A stacked array as the 2-D or 1-D arrays T5X would see, one per layer."""
    layers = array if AXES[name][0] == "layers" else array[None]
    if name == "query":
        return [x.reshape(x.shape[0], -1) for x in layers]
    if name == "output":
        return [x.reshape(-1, x.shape[-1]) for x in layers]
    return list(layers)


def make(seed):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=s).astype(np.float32) * 0.3 for k, s in SHAPES.items()}


def test_stacked_parameters_follow_the_rule_of_t5x_layer_by_layer():
    params, grads = make(0), [make(i) for i in range(1, 5)]
    # Layers of very different size must not see each other.
    params = {
        k: v * (np.arange(len(v)) + 1).reshape(-1, *[1] * (v.ndim - 1)) for k, v in params.items()
    }
    optimizer = scale_by_adafactor(AXES)
    state, now = optimizer.init(params), jax.tree.map(jnp.asarray, params)
    update = jax.jit(optimizer.update)
    for g in grads:
        updates, state = update(g, state, now)
        now = jax.tree.map(lambda p, u: p - 0.01 * u, now, updates)
    for name in AXES:
        layers = zip(
            single_layers(name, params[name]),
            *(single_layers(name, g[name]) for g in grads),
            single_layers(name, np.asarray(now[name])),
            strict=True,
        )
        for start, *layer_grads, got in layers:
            np.testing.assert_allclose(got, reference(start, layer_grads), rtol=1e-5, atol=1e-6)


def test_matrices_are_factored_and_only_they():
    moments = scale_by_adafactor(AXES).init(make(0)).moments
    assert moments["query"].rows.shape == (3, 160)
    assert moments["query"].columns.shape == (3, 4, 48)
    assert moments["output"].rows.shape == (3, 4, 48)
    assert moments["output"].columns.shape == (3, 160)
    assert moments["table"].rows.shape == (200,)
    assert moments["narrow"].whole.shape == (3, 160, 100)
    assert moments["scale"].whole.shape == (3, 160)
    assert moments["query"].whole.size == 1
