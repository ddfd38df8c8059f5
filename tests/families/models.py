"""Small models of every published class, of odd shapes, and batches for them; needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax import families

FIRST_ID = 5  # ids below are special ones or padding and never real input
UNUSED_ROWS = 7  # of the vocabulary, behind the ids in use


@dataclass(frozen=True)
class Case:
    """A model in the words of its class.

    Attributes:
      model_type: of config.json.
      config: its keys that are not the class's defaults.
      length: of the longest row.
      spread: standard deviation of what is added to each parameter, so that none is 0 or 1 or
        small; above 0.1, logits of some are so large that their last bits are above 1e-4.
      shift: added to the positions of one row, where positions can be given.
      own_head: the head's matrix is no longer the embedding's, which T5's config cannot say.
    """

    model_type: str
    config: dict[str, Any]
    length: int = 40
    spread: float = 0.1
    shift: int = 0
    own_head: bool = False

    @property
    def vocab_size(self) -> int:
        return self.config["vocab_size"]

    @property
    def pad(self) -> int:
        return self.config.get("pad_token_id") or 0


def _bert(model_type="bert", *, width, layers, heads, vocab, positions, pad=0, **more):
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * width + 6,
        "max_position_embeddings": positions,
        "pad_token_id": pad,
        **more,
    }


def _modernbert(*, layers, heads=3, width=42, vocab=109, **more):
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 58,
        "local_attention": 6,
        "pad_token_id": 3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
        **more,
    }


def _gpt2(*, layers, heads, width, vocab, positions, **more):
    return {
        "vocab_size": vocab,
        "n_embd": width,
        "n_layer": layers,
        "n_head": heads,
        "n_positions": positions,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **more,
    }


def _bloom(*, layers, heads, width, vocab, **more):
    return {"vocab_size": vocab, "hidden_size": width, "n_layer": layers, "n_head": heads, **more}


def _llama(*, layers, heads, kv, width, vocab, theta=10_000.0, stretched=None, tied=False, **more):
    rope = {"rope_type": "default", "rope_theta": theta}
    if stretched:
        factor, original = stretched
        rope |= {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": original,
        }
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": 2 * width - 10,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "max_position_embeddings": 4096,
        "rope_parameters": rope,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **more,
    }


def _t5(*, encoder, decoder, heads, kv, width, vocab, **more):
    return {
        "vocab_size": vocab,
        "d_model": width,
        "d_kv": kv,
        "d_ff": 2 * width - 10,
        "num_layers": encoder,
        "num_decoder_layers": decoder,
        "num_heads": heads,
        "decoder_start_token_id": 0,
        **more,
    }


def _bart(*, encoder, decoder, heads, width, vocab, positions, **more):
    sides = {"layers": None, "attention_heads": heads, "ffn_dim": 2 * width + 6}
    both = {f"{side}_{key}": v for side in ("encoder", "decoder") for key, v in sides.items()}
    return {
        "vocab_size": vocab,
        "d_model": width,
        "max_position_embeddings": positions,
        **both,
        "encoder_layers": encoder,
        "decoder_layers": decoder,
        **more,
    }


CASES = {
    "bert": Case("bert", _bert(width=48, layers=5, heads=3, vocab=131, positions=160), length=150),
    "bert_own_head": Case(
        "bert",
        _bert(
            width=72,
            layers=1,
            heads=6,
            vocab=97,
            positions=64,
            pad=3,
            type_vocab_size=3,
            hidden_act="gelu_new",
            tie_word_embeddings=False,
        ),
    ),
    "roberta": Case(
        "roberta",
        _bert(
            width=40,
            layers=5,
            heads=5,
            vocab=103,
            positions=122,
            pad=1,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        ),
        length=120,
    ),
    "roberta_own_head": Case(
        "roberta",
        _bert(
            width=36,
            layers=1,
            heads=3,
            vocab=119,
            positions=70,
            pad=3,  # positions are looked up from row 4 on
            type_vocab_size=2,
            tie_word_embeddings=False,
        ),
    ),
    "modernbert": Case("modernbert", _modernbert(layers=7), length=96, shift=30),
    "modernbert_biases": Case(
        "modernbert",
        _modernbert(
            layers=5,
            heads=5,
            width=50,
            attention_bias=True,
            mlp_bias=True,
            norm_bias=True,
            classifier_bias=True,
            hidden_activation="gelu_pytorch_tanh",
            classifier_activation="gelu_pytorch_tanh",
        ),
        length=64,
    ),
    "modernbert_own_head": Case("modernbert", _modernbert(layers=1, tie_word_embeddings=False)),
    "modernbert_every_second": Case(
        "modernbert",
        _modernbert(
            layers=4,
            global_attn_every_n_layers=2,
            local_attention=10,
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
            },
        ),
    ),
    "modernbert_all_global": Case(
        "modernbert", _modernbert(layers=3, global_attn_every_n_layers=1)
    ),
    "gpt2": Case("gpt2", _gpt2(layers=5, heads=3, width=48, vocab=113, positions=140), length=130),
    "gpt2_own_head": Case(
        "gpt2",
        _gpt2(
            layers=1,
            heads=5,
            width=60,
            vocab=151,
            positions=64,
            n_inner=70,
            activation_function="gelu",
            tie_word_embeddings=False,
        ),
    ),
    "bloom": Case("bloom", _bloom(layers=5, heads=6, width=48, vocab=139), length=120),
    "bloom_own_head": Case(
        "bloom",
        _bloom(layers=1, heads=5, width=40, vocab=101, pad_token_id=3, tie_word_embeddings=False),
    ),
    "bloom_few_heads": Case("bloom", _bloom(layers=2, heads=3, width=36, vocab=107)),
    "bloom_many_heads": Case("bloom", _bloom(layers=2, heads=12, width=72, vocab=107)),
    "llama": Case(
        "llama",
        _llama(
            layers=5,
            heads=6,
            kv=2,
            head_dim=10,
            width=48,
            vocab=131,
            theta=500_000.0,
            stretched=(8.0, 64),
            tied=True,
        ),
        length=150,
        shift=500,
    ),
    "llama_one_key": Case(
        "llama",
        _llama(layers=1, heads=3, kv=1, head_dim=18, width=72, vocab=101, mlp_bias=True),
        shift=500,
    ),
    "llama_biases": Case(
        "llama",
        _llama(
            layers=2,
            heads=5,
            kv=5,
            width=50,
            vocab=107,
            attention_bias=True,
            mlp_bias=True,
            pad_token_id=3,
        ),
        length=96,
    ),
    "qwen3": Case(
        "qwen3",
        _llama(layers=5, heads=6, kv=3, head_dim=14, width=40, vocab=127, theta=1e6, tied=True),
        length=120,
        shift=500,
    ),
    "qwen3_own_head": Case(
        "qwen3",
        _llama(layers=1, heads=5, kv=1, head_dim=12, width=36, vocab=109, attention_bias=True),
    ),
    "olmo2": Case(
        "olmo2",
        _llama(layers=5, heads=6, kv=3, width=48, vocab=137, theta=500_000.0, pad_token_id=1),
        length=120,
        shift=500,
    ),
    "olmo2_tied": Case(
        "olmo2",
        _llama(layers=1, heads=3, kv=1, width=36, vocab=103, tied=True, attention_bias=True),
    ),
    "t5": Case("t5", _t5(encoder=5, decoder=2, heads=3, kv=10, width=48, vocab=131), length=150),
    "t5_own_head": Case(
        "t5",
        _t5(
            encoder=1,
            decoder=3,
            heads=6,
            kv=14,
            width=40,
            vocab=109,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            relative_attention_num_buckets=12,
            relative_attention_max_distance=30,
            initializer_factor=0.5,
        ),
        length=70,
        own_head=True,
    ),
    "t5_unscaled": Case(
        "t5",
        _t5(
            encoder=2,
            decoder=1,
            heads=5,
            kv=8,
            width=40,
            vocab=101,
            feed_forward_proj="gated-silu",
            tie_word_embeddings=False,
            initializer_factor=0.5,
        ),
    ),
    "t5_scaled_own_head": Case(
        "t5", _t5(encoder=1, decoder=1, heads=3, kv=6, width=30, vocab=97), own_head=True
    ),
    "bart": Case(
        "bart",
        _bart(encoder=5, decoder=2, heads=3, width=48, vocab=127, positions=130),
        length=120,
    ),
    "bart_own_head": Case(
        "bart",
        _bart(
            encoder=1,
            decoder=3,
            heads=5,
            width=40,
            vocab=103,
            positions=50,
            activation_function="gelu_new",
            tie_word_embeddings=False,
        ),
    ),
}


def batch(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Four rows: whole, padded behind, padded in front or whole, and positions moved up or not.

    Real ids are all used ones; padding holds the pad id, from which RoBERTa finds its positions.
    """
    rng = np.random.default_rng(seed)
    fields = _rows(case, rng, case.length)
    if case.model_type in ("t5", "bart"):
        encoder = _rows(case, rng, case.length - 9)
        return fields | {f"enc_{name}": field for name, field in encoder.items()}
    if (types := case.config.get("type_vocab_size", 2 * (case.model_type == "bert"))) > 1:
        fields["token_types"] = rng.integers(0, types, fields["inputs"].shape).astype(np.int32)
    return fields


def _rows(case: Case, rng: np.random.Generator, length: int) -> dict[str, np.ndarray]:
    real = np.ones((4, length), np.int32)
    real[1, 2 * length // 3 :] = 0
    if case.model_type != "bart":  # which counts positions from the first place, padding or not
        real[2, : length // 4] = 0
    positions = np.maximum(real.cumsum(1) - 1, 0)
    positions[3] += case.shift
    ids = rng.integers(FIRST_ID, case.vocab_size - UNUSED_ROWS, real.shape)
    return {
        "inputs": np.where(real, ids, case.pad).astype(np.int32),
        "segment_ids": real,
        "positions": (positions * real).astype(np.int32),
    }


def training_batch(case: Case, seed: int = 0, decides: int = 9) -> dict[str, np.ndarray]:
    """A batch with something to learn: each id says which one is next to it.

    Args:
      case: the model.
      seed: of the rows.
      decides: predictions in a row of an encoder; the last of them has no weight.
    """
    fields = batch(case, seed)
    rng = np.random.default_rng(seed)
    used = case.vocab_size - UNUSED_ROWS - FIRST_ID
    following = lambda ids: FIRST_ID + (3 * (ids - FIRST_ID) + 2) % used
    for name in [name for name in fields if name.endswith("inputs")]:
        real = fields[f"{name[:-6]}segment_ids"] > 0
        ids = fields[name]
        for t in range(1, ids.shape[1]):
            known = real[:, t] & real[:, t - 1]
            ids[:, t] = np.where(known, following(ids[:, t - 1]), ids[:, t])
    real = fields["segment_ids"] > 0
    targets = np.where(real, following(fields["inputs"]), 0)
    weights = real.astype(np.float32)
    if families.FORMATS[case.model_type][1].base["architecture"] == "encoder":
        chosen = [np.sort(rng.choice(np.nonzero(row)[0], decides, replace=False)) for row in real]
        fields["predict_at"] = np.array(chosen, np.int32)
        targets = np.take_along_axis(targets, fields["predict_at"], axis=1)
        weights = np.ones(targets.shape, np.float32)
        weights[:, -1] = 0
    fields |= {"targets": targets.astype(np.int32), "weights": weights}
    return fields | {"content_weights": weights}
