"""What the tests of the model share: batches, configs, parameters, and a slow forward in NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lmjax.model_config import ModelConfig
from lmjax.nn.model import Model

VOCAB = 64

# Every knob at least twice, none only at its default.
CONFIGS = {
    "gpt2": {"init_residual_scale": True},
    "post": {"norm_placement": "post", "architecture": "encoder", "activation": "gelu"},
    "llama_like": {
        "norm": "rmsnorm",
        "activation": "silu",
        "mlp_gated": True,
        "mlp_size": 40,
        "num_kv_heads": 2,
        "use_bias": False,
        "tie_embeddings": False,
        "position": "none",
        "max_positions": None,
    },
    "post_rms": {
        "norm": "rmsnorm",
        "norm_placement": "post",
        "activation": "relu",
        "mlp_gated": True,
        "num_kv_heads": 1,
        "head_dim": 12,
    },
    "no_bias_layernorm": {"use_bias": False, "head_dim": 4},
}


def config(**fields):
    """A small config; weights are large enough for every part to matter."""
    small = {
        "hidden_size": 32,
        "num_layers": 3,
        "num_heads": 4,
        "max_positions": 32,
        "init_std": 0.2,
        "vocab_size": VOCAB,
    }
    return ModelConfig(**(small | fields))


def batch(*rows, length=16, seed=0):
    """Rows of segments with the given lengths, padded to `length`."""
    fields = {
        name: np.zeros((len(rows), length), np.int32) for name in ("segment_ids", "positions")
    }
    for b, segments in enumerate(rows):
        start = 0
        for number, size in enumerate(segments, 1):
            fields["segment_ids"][b, start : start + size] = number
            fields["positions"][b, start : start + size] = np.arange(size)
            start += size
    inputs = np.random.default_rng(seed).integers(1, VOCAB, (len(rows), length))
    fields["inputs"] = np.where(fields["segment_ids"] > 0, inputs, 0).astype(np.int32)
    return fields


def slots(data, start, stop):
    """Columns [start, stop) of a batch."""
    return {name: array[:, start:stop] for name, array in data.items()}


@functools.cache
def params(cfg, seed=0):
    """Parameters of a model, none of them at a value that hides mistakes (0 biases, 1 scales)."""
    model = Model(cfg, VOCAB)
    tree = nn.meta.unbox(jax.jit(model.init)(jax.random.key(seed), batch([16])))["params"]
    rng = np.random.default_rng(seed)

    def move(path, leaf):
        noisy = path[-1].key in ("bias", "scale")
        return leaf + noisy * jnp.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(move, tree)


def numpy_forward(cfg, tree, data):
    """Logits in float64, row by row, head by head and position by position, from the papers."""
    tree = jax.tree.map(lambda a: np.asarray(a, np.float64), tree)
    rows = [
        _row(cfg, tree, *(data[k][b] for k in ("inputs", "segment_ids", "positions")))
        for b in range(len(data["inputs"]))
    ]
    return np.stack(rows)


def _row(cfg, tree, ids, segments, positions):
    x = tree["embed"]["token"][ids]
    if cfg.position == "learned":
        x = x + tree["embed"]["position"][positions]
    for layer in range(cfg.num_layers):
        p = jax.tree.map(lambda a, layer=layer: a[layer], tree["stack"]["unit"]["0"])
        attend = lambda h, p=p: _attention(cfg, p["attention"], h, segments, positions)
        mlp = lambda h, p=p: _mlp(cfg, p["mlp"], h)
        for f, norm in ((attend, p["attention_norm"]), (mlp, p["mlp_norm"])):
            if cfg.norm_placement == "pre":
                x = x + f(_norm(cfg, norm, x))
            else:
                x = _norm(cfg, norm, x + f(x))
    if cfg.norm_placement == "pre":
        x = _norm(cfg, tree["final_norm"], x)
    return x @ (tree["embed"]["token"].T if cfg.tie_embeddings else tree["projection"]["kernel"])


def _norm(cfg, p, x):
    if cfg.norm == "layernorm":
        x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + cfg.norm_epsilon) * p["scale"] + p.get(
        "bias", 0
    )


def _attention(cfg, p, x, segments, positions):
    out = np.zeros_like(x) + p["output"].get("bias", 0)
    for head in range(cfg.num_heads):
        group = head // (cfg.num_heads // cfg.kv_heads)
        q, k, v = (
            x @ p[name]["kernel"][:, i] + (p[name]["bias"][i] if cfg.use_bias else 0)
            for name, i in (("query", head), ("key", group), ("value", group))
        )
        for t in range(len(x)):
            seen = segments == segments[t]
            if cfg.architecture == "decoder":
                seen &= positions <= positions[t]
            scores = k[seen] @ q[t] / math.sqrt(cfg.head_width)
            weights = np.exp(scores - scores.max())
            out[t] += weights / weights.sum() @ v[seen] @ p["output"]["kernel"][head]
    return out


_ERF = np.vectorize(math.erf)
_ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + _ERF(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def _mlp(cfg, p, x):
    linear = lambda name, h: h @ p[name]["kernel"] + p[name].get("bias", 0)
    activation = _ACTIVATIONS[cfg.activation]
    up = linear("up", x)
    return linear("down", activation(linear("gate", x)) * up if cfg.mlp_gated else activation(up))
