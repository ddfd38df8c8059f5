"""Small models of the three variants and hand-made batches, for the tests of this folder."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax import families
from lmjax.model_config import ModelConfig
from lmjax.nn.model import Model

VOCAB = 96
_SMALL = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": VOCAB}
VARIANTS = {
    "gpt2": families.gpt2.BASE | _SMALL,
    "llama": families.llama.PRESETS["qwen3_0_6b"]
    | _SMALL
    | {"head_dim": 8, "mlp_size": 64, "num_kv_heads": 2},
    "olmo2": families.llama.PRESETS["olmo2_1b"] | _SMALL | {"mlp_size": 64, "rope_factor": 8.0},
    "bloom": families.bloom.BASE | _SMALL | {"num_heads": 6, "head_dim": 8},
    "bert": families.bert.BASE | _SMALL,
    "roberta": families.roberta.BASE | _SMALL,
    "modernbert": families.modernbert.BASE
    | _SMALL
    | {"num_layers": 9, "mlp_size": 64, "window": 4},
    "t5": families.t5.PRESETS["base"] | _SMALL | {"head_dim": 8, "mlp_size": 64},
    "t5_v1_1": families.t5.PRESETS["v1_1_base"] | _SMALL | {"head_dim": 8, "mlp_size": 64},
    "bart": families.bart.BASE | _SMALL,
}


def make_model(variant, *, unroll=1, **fields):
    """Model and seed-0 parameters; every parameter is moved so that none is 0 or 1."""
    config = ModelConfig(**VARIANTS[variant] | fields)
    return Model(config, VOCAB, unroll=unroll), _parameters(config)


@functools.cache
def _parameters(config):
    model, batch = Model(config, VOCAB), sequence(config.architecture, [3, 2])
    params = jax.jit(lambda key: nn.unbox(model.init(key, batch)["params"]))(jax.random.key(0))
    rng = np.random.default_rng(1)
    move = lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32)
    return jax.tree.map(lambda leaf: jnp.asarray(move(np.asarray(leaf))), params)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, batch):
    """Logits of a batch."""
    return model.apply({"params": params}, batch)


def is_two(variant):
    return _architecture(variant) == "encoder_decoder"


def is_encoder(variant):
    return _architecture(variant) == "encoder"


def _architecture(variant):
    return VARIANTS[variant]["architecture"] if variant in VARIANTS else variant


def segments(lengths, padding=0):
    """[1, T] segment ids and positions of packed documents with `padding` behind."""
    ids = np.concatenate([np.full(n, i + 1) for i, n in enumerate(lengths)] + [np.zeros(padding)])
    positions = np.concatenate([np.arange(n) for n in lengths] + [np.zeros(padding)])
    return ids[None].astype(np.int32), positions[None].astype(np.int32)


def sequence(variant, lengths, *, source=None, padding=0, first=0):
    """A batch of one row of packed documents whose ids are all different, from `first` on.

    `variant`: of VARIANTS, or an architecture.
    """
    segment_ids, positions = segments(lengths, padding)
    count = segment_ids.size
    batch = {
        "inputs": first + np.arange(count, dtype=np.int32)[None],
        "segment_ids": segment_ids,
        "positions": positions,
    }
    if is_two(variant):
        enc_segment_ids, enc_positions = segments(source or lengths, padding)
        size = enc_segment_ids.size
        batch |= {
            "enc_inputs": first + count + np.arange(size, dtype=np.int32)[None],
            "enc_segment_ids": enc_segment_ids,
            "enc_positions": enc_positions,
        }
    return {k: jnp.asarray(v) for k, v in batch.items()}
