"""Logits of the same weights in transformers' PyTorch models; needs the extra [parity]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.config import ModelConfig
from lmjax.families import gpt2
from lmjax.nn.model import Model

pytestmark = [
    pytest.mark.parity,
    # 2026-11: third-party imports warn (torch, transformers on Python 3.11).
    pytest.mark.filterwarnings("ignore"),
]

HEADS, WIDTH, LAYERS, VOCAB = 4, 64, 3, 500


def _ours(state):
    """GPT2LMHeadModel's state dict -> our tree; its Conv1D kernels are [in, out] already."""
    weight = lambda name: np.asarray(state[f"transformer.{name}"], np.float32)
    layers = lambda name: np.stack([weight(f"h.{i}.{name}") for i in range(LAYERS)])
    norm = lambda name: {"scale": layers(f"{name}.weight"), "bias": layers(f"{name}.bias")}
    linear = lambda name: {"kernel": layers(f"{name}.weight"), "bias": layers(f"{name}.bias")}
    qkv, qkv_bias = layers("attn.c_attn.weight"), layers("attn.c_attn.bias")
    heads = (HEADS, WIDTH // HEADS)
    attention = {
        name: {
            "kernel": qkv[..., i * WIDTH : (i + 1) * WIDTH].reshape(LAYERS, WIDTH, *heads),
            "bias": qkv_bias[..., i * WIDTH : (i + 1) * WIDTH].reshape(LAYERS, *heads),
        }
        for i, name in enumerate(("query", "key", "value"))
    }
    output = linear("attn.c_proj")
    output["kernel"] = output["kernel"].reshape(LAYERS, *heads, WIDTH)
    block = {
        "attention_norm": norm("ln_1"),
        "attention": {**attention, "output": output},
        "mlp_norm": norm("ln_2"),
        "mlp": {"up": linear("mlp.c_fc"), "down": linear("mlp.c_proj")},
    }
    return {
        "embed": {"token": weight("wte.weight"), "position": weight("wpe.weight")},
        "stack": {"unit": {"0": block}},
        "final_norm": {"scale": weight("ln_f.weight"), "bias": weight("ln_f.bias")},
    }


def test_gpt2_logits():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_layer=LAYERS,
            n_embd=WIDTH,
            n_head=HEADS,
            vocab_size=VOCAB,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # nothing small, nothing at 0 or 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    fields = gpt2.BASE | {
        "hidden_size": WIDTH,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "max_positions": 64,
    }
    model = Model(ModelConfig(**fields), VOCAB)

    rng = np.random.default_rng(0)
    real = np.ones((3, 40), np.int32)
    real[1, 25:] = 0  # padding behind
    real[2, :10] = 0  # padding in front
    batch = {
        "inputs": rng.integers(0, VOCAB, real.shape).astype(np.int32),
        "segment_ids": real,
        "positions": np.maximum(real.cumsum(1) - 1, 0).astype(np.int32) * real,
    }
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(batch["inputs"]).long(),
            attention_mask=torch.tensor(real).long(),
            position_ids=torch.tensor(batch["positions"]).long(),
        ).logits.numpy()
    tree = jax.tree.map(jnp.asarray, _ours(theirs.state_dict()))
    logits = np.asarray(jax.jit(model.apply)({"params": tree}, batch))
    assert np.abs(expected).max() > 1
    assert np.abs(logits - expected)[real > 0].max() <= 1e-4
