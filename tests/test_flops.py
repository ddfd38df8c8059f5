"""FLOPs by hand, memory against XLA's own figures; parameters are counted in tests/nn."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from lmjax import families, flops
from lmjax.config import Config, DataConfig, TrainConfig
from lmjax.model_config import ModelConfig
from lmjax.nn.kernels.spec import How
from lmjax.nn.model import Model


def test_flops_of_gpt2_small():
    model = ModelConfig(**families.gpt2.PRESETS["small"], vocab_size=50304)
    row = flops.Lengths(target=1024, source=0, predicted=1024)
    attention = 12 * 12 * 768 * 1024
    per_token = flops.flops_per_token(model, row)
    assert per_token.full == 6 * (12 * 12 * 768**2 + 768 * 50304) + attention
    assert per_token.full - per_token.causal == attention / 2
    assert flops.flops_per_row(model, row).full == per_token.full * 1024


def test_flops_of_bert_base_count_the_head_where_something_is_predicted():
    model = ModelConfig(**families.bert.PRESETS["base"], vocab_size=30592)
    row = flops.Lengths(target=512, source=0, predicted=77)
    per_row = flops.flops_per_row(model, row)
    blocks = 6 * 12 * 12 * 768**2 * 512 + 12 * 12 * 768 * 512**2
    assert per_row.full == blocks + 6 * 77 * (768 * 30592 + 768**2)
    assert per_row.causal == per_row.full


def test_flops_of_t5_base_count_each_side_by_its_own_length():
    model = ModelConfig(**families.t5.PRESETS["base"], vocab_size=32128)
    row = flops.Lengths(target=114, source=512, predicted=114)
    d, a, m, s, t, layers = 768, 768, 3072, 512, 114, 12
    attention, mlp = 4 * d * a, 2 * d * m
    expected = 6 * layers * (attention + mlp) * s + 12 * layers * a * s * s
    expected += 6 * layers * (attention + 2 * d * a + mlp) * t + 6 * layers * 2 * d * a * s
    expected += 12 * layers * a * t * t + 12 * layers * a * t * s + 6 * d * 32128 * t
    assert flops.flops_per_row(model, row).full == expected
    assert flops.flops_per_token(model, row).full == expected / 626


@pytest.mark.parametrize("window", [2, 5, 6])
@pytest.mark.parametrize("every", [None, 1, 3])
def test_flops_of_windows_count_the_pairs_that_are_seen(window, every):
    fields = {"num_layers": 5, "hidden_size": 16, "num_heads": 2, "vocab_size": 32}
    local = {"architecture": "encoder", "window": window, "global_every": every}
    near, whole = ModelConfig(**fields, **local), ModelConfig(**fields, architecture="encoder")

    def saved(length):
        row = flops.Lengths(length, 0, 0)
        pair = [flops.flops_per_row(model, row) for model in (whole, near)]
        assert all(flop.full == flop.causal for flop in pair)
        return (pair[0].full - pair[1].full) / (12 * 16)

    def hidden(length):  # of a row without ends
        at = range(length)
        seen = sum(min(abs(q - k), length - abs(q - k)) <= window // 2 for q in at for k in at)
        layers = sum(every is None or layer % every > 0 for layer in range(5))
        return layers * (length**2 - seen)

    for length in (1, 2, 7, 8, 30):
        assert saved(length) == hidden(length)


KNOBS = [
    {"position_offset": 2},
    {"position": "alibi", "max_positions": None, "embedding_norm": True},
    {"window": 4, "global_every": 3, "first_attention_norm": False, "num_layers": 8},
    {"first_attention_norm": False, "num_layers": 1},
    {"attention_bias": False},
    {"mlp_bias": False, "mlp_gated": True},
    {"norm_bias": False, "qk_norm": "head"},
    {"use_bias": False, "norm_bias": True, "qk_norm": "all", "num_kv_heads": 1},
    {"use_bias": False, "attention_bias": True, "norm": "rmsnorm", "norm_bias": True},
]


@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("architecture", ["encoder", "decoder", "encoder_decoder"])
@pytest.mark.parametrize("head", [{"head": "mlm"}, {"frozen_logits_bias": True}])
def test_parameters_with_every_knob(knobs, architecture, head):
    fields = {"num_layers": 4, "hidden_size": 16, "num_heads": 2, "vocab_size": 32}
    both = architecture == "encoder_decoder"
    more = {"encoder_embeddings": True, "num_encoder_layers": 2} if both else {}
    model = ModelConfig(**fields | {"architecture": architecture} | head | more | knobs)
    batch = _batch(1, flops.Lengths(4, 4 * both, 4))
    tree = jax.eval_shape(Model(model, 32).init, jax.random.key(0), batch)["params"]
    counted = {"embed": 0, "encoder": 0, "stack": 0, "head": 0}
    for name, part in tree.items():
        home = {"final_norm": "stack", "encoder_norm": "encoder", "encoder_embed": "encoder"}
        home |= {"transform": "head", "head_bias": "head", "projection": "head"}
        counted[home.get(name, name)] += sum(leaf.size for leaf in jax.tree.leaves(part))
    assert flops.num_params(model) == {k: v for k, v in counted.items() if v}


def _batch(rows, row):
    ids = lambda length: jax.ShapeDtypeStruct((rows, length), jnp.int32)
    batch = dict.fromkeys(("inputs", "segment_ids", "positions"), ids(row.target))
    if row.source:
        batch |= dict.fromkeys(("enc_inputs", "enc_segment_ids", "enc_positions"), ids(row.source))
    return batch


def _by_xla(config, row, rows, kernel):
    """Bytes of a compiled value_and_grad: arguments, results and temporaries."""
    model = Model(config.model, config.model.vocab_size, remat=config.train.remat, how=How(kernel))
    batch = _batch(rows, row)
    variables = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0), batch))

    def loss(variables, batch):
        logits = model.apply(variables, batch)
        target = jnp.take_along_axis(logits, batch["inputs"][..., None], -1)[..., 0]
        return (jax.nn.logsumexp(logits, -1) - target).mean()

    stats = jax.jit(jax.value_and_grad(loss)).lower(variables, batch).compile().memory_analysis()
    return stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes


T5 = {k: v for k, v in families.t5.BASE.items() if k != "head_dim"}


@pytest.mark.parametrize(
    ("fields", "row", "remat"),
    [
        ({"hidden_size": 128, "vocab_size": 2048}, (256, 0), "none"),
        ({"hidden_size": 128, "vocab_size": 2048}, (256, 0), "dots"),
        ({"hidden_size": 128, "vocab_size": 2048}, (256, 0), "full"),
        ({"hidden_size": 64, "num_layers": 8, "vocab_size": 512}, (512, 0), "none"),
        ({"hidden_size": 128, "num_layers": 2, "vocab_size": 16384}, (128, 0), "none"),
        (families.bert.BASE | {"hidden_size": 128, "vocab_size": 1024}, (256, 0), "none"),
        (T5 | {"hidden_size": 128, "vocab_size": 1024}, (64, 256), "none"),
        (T5 | {"hidden_size": 128, "vocab_size": 1024}, (64, 256), "full"),
    ],
)
@pytest.mark.parametrize("kernel", ["xla", "blockwise"])
def test_memory_is_near_xlas(fields, row, remat, kernel):
    config = Config(
        model=ModelConfig(**fields),
        data=DataConfig(seq_len=256),
        train=TrainConfig(remat=remat, global_batch_size=8),
    )
    row = flops.Lengths(row[0], row[1], row[0])
    how = flops.Computing(4, keeps_scores=kernel == "xla")
    parts = flops.memory(config, row, 8, how, accumulates=False)
    estimate = sum(parts.values()) - parts["optimizer"]
    assert 0.7 < estimate / _by_xla(config, row, 8, kernel) < 1.3


def _small(**train):
    model = ModelConfig(**families.gpt2.PRESETS["small"], vocab_size=50304)
    return Config(model=model, train=TrainConfig(**train)), flops.Lengths(1024, 0, 1024)


def test_largest_micro_batch():
    config, row = _small(global_batch_size=48)
    budget = 20 * 2**30
    how = flops.Computing(2)
    best = flops.largest_micro_batch(config, row, budget, how)
    assert 1 < best < 48
    assert 48 % best == 0

    def fits(rows):
        chunk = flops.loss_chunk(config, row, rows, budget, how)
        parts = flops.memory(config, row, rows, how, accumulates=rows < 48, chunk=chunk)
        return sum(parts.values()) <= budget

    assert fits(best)
    assert not any(fits(rows) for rows in range(best + 1, 49) if 48 % rows == 0)
    split = flops.Computing(4, flops.Split(rows=8))
    assert flops.largest_micro_batch(config, row, 10**15, split) == 48
    assert flops.largest_micro_batch(config, row, 0, split) == 8
    assert flops.largest_micro_batch(config, row, budget, split) % 8 == 0
