"""Same weights, same logits; same initial distribution, same first loss: against transformers'
PyTorch models. Needs the extra [parity]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.config import ModelConfig
from lmjax.families import bert, gpt2, llama, t5
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


def _first_logits(theirs, fields, vocab, two_stacks):
    """(theirs, ours) of freshly initialised models on the same random rows, [8, 64, V] each."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, vocab, (8, 64)).astype(np.int32)
    ones, positions = np.ones_like(inputs), np.tile(np.arange(64, dtype=np.int32), (8, 1))
    batch = {"inputs": inputs, "segment_ids": ones, "positions": positions}
    given = {"input_ids": torch.tensor(inputs).long()}
    if two_stacks:
        given["decoder_input_ids"] = given["input_ids"]
        batch |= {"enc_inputs": inputs, "enc_segment_ids": ones, "enc_positions": positions}
    with torch.no_grad():
        expected = theirs(**given).logits.numpy()
    model = Model(ModelConfig(**fields), vocab)
    got = jax.jit(lambda key: model.apply(model.init(key, batch), batch))(jax.random.key(0))
    return expected, np.asarray(got)


@pytest.mark.parametrize(
    ("family", "std"),
    [("bert", 0.02), ("bert", 0.1), ("gpt2", 0.02), ("gpt2", 0.1), ("t5", None)],
)
def test_the_first_loss(family, std):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    vocab, size = 4096, {"hidden_size": 128, "num_layers": 4, "num_heads": 4}
    torch.manual_seed(0)
    if family == "bert":
        theirs = transformers.BertForMaskedLM(
            transformers.BertConfig(
                vocab_size=vocab,
                hidden_size=128,
                num_hidden_layers=4,
                num_attention_heads=4,
                intermediate_size=512,
                initializer_range=std,
            )
        )
        # Devlin et al. truncate at two standard deviations, transformers does not.
        fields = bert.BASE | {"init": "normal", "init_std": std}
    elif family == "gpt2":
        theirs = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=vocab,
                n_embd=128,
                n_layer=4,
                n_head=4,
                bos_token_id=0,
                eos_token_id=0,
                initializer_range=std,
            )
        )
        fields = gpt2.BASE | {"init_std": std}
    else:  # no such knob: its matrices start at 1 / sqrt(inputs), its embedding at 1
        theirs = transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=vocab, d_model=128, d_kv=32, d_ff=512, num_layers=4, num_heads=4
            )
        )
        fields = t5.BASE | {"head_dim": 32}
    expected, got = _first_logits(theirs.eval(), fields | size, vocab, family == "t5")
    targets = np.random.default_rng(1).integers(0, vocab, (8, 64))

    def loss(logits):
        log_p = np.asarray(jax.nn.log_softmax(logits))
        return -np.take_along_axis(log_p, targets[..., None], -1).mean()

    assert loss(got) == pytest.approx(loss(expected), rel=0.02)
    # Losses near ln V agree whatever the initialisation: the logits must spread alike, too.
    assert got.std() == pytest.approx(expected.std(), rel=0.1)


def _llama(state, layers, head_dim):
    """LlamaForCausalLM's state dict, or Qwen3's or OLMo 2's, -> our tree."""
    weight = lambda name: np.asarray(state[name], np.float32)
    stacked = lambda name: np.stack(
        [weight(f"model.layers.{i}.{name}.weight") for i in range(layers)]
    )
    kernel = lambda name: {"kernel": stacked(name).swapaxes(1, 2)}  # [out, in] -> [in, out]
    heads = lambda x: x.reshape(*x.shape[:2], -1, head_dim)
    output = kernel("self_attn.o_proj")["kernel"]
    attention = {
        name: {"kernel": heads(kernel(f"self_attn.{name[0]}_proj")["kernel"])}
        for name in ("query", "key", "value")
    }
    attention["output"] = {"kernel": output.reshape(layers, -1, head_dim, output.shape[-1])}
    for name in ("query", "key"):
        if f"model.layers.0.self_attn.{name[0]}_norm.weight" in state:
            attention[f"{name}_norm"] = {"scale": stacked(f"self_attn.{name[0]}_norm")}
    names = ["input_layernorm", "post_attention_layernorm"]
    if "model.layers.0.input_layernorm.weight" not in state:
        names = ["post_attention_layernorm", "post_feedforward_layernorm"]
    block = {
        "attention": attention,
        "mlp": {name: kernel(f"mlp.{name}_proj") for name in ("gate", "up", "down")},
        "attention_norm": {"scale": stacked(names[0])},
        "mlp_norm": {"scale": stacked(names[1])},
    }
    tree = {
        "embed": {"token": weight("model.embed_tokens.weight")},
        "stack": {"unit": {"0": block}},
        "final_norm": {"scale": weight("model.norm.weight")},
    }
    if not np.array_equal(weight("lm_head.weight"), tree["embed"]["token"]):
        tree["projection"] = {"kernel": weight("lm_head.weight").T}
    return tree


@pytest.mark.parametrize(
    ("name", "preset", "shape"),
    [
        (
            "Llama",
            "llama3_1b",
            {"num_heads": 6, "num_kv_heads": 2, "head_dim": 10, "num_layers": 3},
        ),
        (
            "Llama",
            "llama3_8b",
            {"num_heads": 4, "num_kv_heads": 1, "head_dim": 18, "num_layers": 1},
        ),
        (
            "Qwen3",
            "qwen3_0_6b",
            {"num_heads": 5, "num_kv_heads": 5, "head_dim": 14, "num_layers": 2},
        ),
        ("Olmo2", "olmo2_1b", {"num_heads": 6, "num_kv_heads": 3, "num_layers": 5}),
    ],
)
def test_llama_like_logits(name, preset, shape):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = ModelConfig(
        **llama.PRESETS[preset] | {"hidden_size": 72, "mlp_size": 100, "head_dim": None} | shape
    )
    scaling = {"rope_type": "default"}
    if config.rope_factor > 1:
        scaling = {
            "rope_type": "llama3",
            "factor": config.rope_factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": config.rope_original_positions,
        }
    theirs = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(
            vocab_size=VOCAB,
            hidden_size=config.hidden_size,
            intermediate_size=config.mlp_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_width,
            rms_norm_eps=config.norm_epsilon,
            rope_parameters={"rope_theta": config.rope_theta, **scaling},
            tie_word_embeddings=config.tie_embeddings,
            max_position_embeddings=100_000,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    rng = np.random.default_rng(0)
    real = np.ones((3, 40), np.int32)
    real[1, 25:] = 0  # padding behind
    positions = np.tile(np.arange(40, dtype=np.int32), (3, 1))
    # Angles in float32 lose digits with their size, theirs (from frequencies in float32) and ours.
    positions[2] += 500
    inputs = rng.integers(1, VOCAB, real.shape).astype(np.int32)
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(inputs).long(),
            attention_mask=torch.tensor(real).long(),
            position_ids=torch.tensor(positions).long(),
        ).logits.numpy()
    tree = jax.tree.map(
        jnp.asarray, _llama(theirs.state_dict(), config.num_layers, config.head_width)
    )
    batch = {"inputs": inputs, "segment_ids": real, "positions": positions}
    logits = np.asarray(jax.jit(Model(config, VOCAB).apply)({"params": tree}, batch))
    assert np.abs(expected).max() > 1
    assert np.abs(logits - expected)[real > 0].max() <= 1e-4
