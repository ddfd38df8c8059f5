"""What must hold of every variant: no leaks, packing, scanning, initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import VARIANTS, VOCAB, is_encoder, is_two, make_model, sequence

from lmjax import flops
from lmjax.model_config import ModelConfig
from lmjax.nn.model import Model

# RoBERTa's blocks are BERT's, T5 1.1 has all that 1.0 has: once is enough for what is slow.
BLOCKS = [variant for variant in VARIANTS if variant not in ("roberta", "t5")]
_DEPTH = {"modernbert": 7}  # two units of three layers behind the first one
# Compiling two programs at full effort takes long; these have what no other variant has.
_USUAL = ("gpt2", "bert", "modernbert", "t5_v1_1")
_UNROLLED = [v if v in _USUAL else pytest.param(v, marks=pytest.mark.slow) for v in BLOCKS]


def influence(variant, batch):
    """[T, N]: whether the logits at t depend on the id at place n (inputs, then enc_inputs)."""
    model, params = make_model(variant, tie_embeddings=False)
    weight = jax.random.normal(jax.random.key(3), (VOCAB,))

    def score(table, t):
        changed = params | {"embed": params["embed"] | {"token": table}}
        return model.apply({"params": changed}, batch)[0, t] @ weight

    length = batch["inputs"].shape[1]
    grads = jax.jit(jax.vmap(jax.grad(score), in_axes=(None, 0)))(
        params["embed"]["token"], jnp.arange(length)
    )
    assert np.isfinite(grads).all()
    order = [batch["inputs"][0]] + ([batch["enc_inputs"][0]] if is_two(variant) else [])
    return np.abs(np.asarray(grads))[:, np.concatenate(order)].sum(-1) != 0


@pytest.mark.parametrize("variant", BLOCKS)
def test_no_leak_from_the_future_or_from_other_documents(variant):
    batch = sequence(variant, [4, 1, 5], source=[3, 2, 6], padding=3)
    seen = influence(variant, batch)
    segment = np.asarray(batch["segment_ids"][0])
    real = segment > 0
    same = segment[:, None] == segment[None]
    index = np.arange(len(segment))
    expected = same if is_encoder(variant) else same & (index[None] <= index[:, None])
    length = len(segment)
    assert np.array_equal(seen[real, :length], expected[real])
    if is_two(variant):
        source = np.asarray(batch["enc_segment_ids"][0])
        assert np.array_equal(seen[real, length:], (segment[:, None] == source[None])[real])


@pytest.mark.parametrize("variant", _UNROLLED)
def test_scan_and_unrolled_agree_bit_for_bit(variant):
    # Of a single row XLA computes the products inside of other loops, each program in its own way.
    batch = sequence(variant, [9, 7], source=[6, 12], padding=2)
    batch = {name: jnp.tile(field, (8, 1)) for name, field in batch.items()}
    targets = (7 * batch["inputs"] % VOCAB)[..., None]

    def loss_and_grads(unroll):
        model, params = make_model(variant, unroll=unroll, num_layers=_DEPTH.get(variant, 3))

        def nats(params):
            log_probs = jax.nn.log_softmax(model.apply({"params": params}, batch))
            return -jnp.take_along_axis(log_probs, targets, -1).mean()

        # As users' programs are compiled, see conftest.py.
        options = {"xla_backend_optimization_level": 3}
        return jax.jit(jax.value_and_grad(nats), compiler_options=options)(params)

    for a, b in zip(
        jax.tree.leaves(loss_and_grads(1)), jax.tree.leaves(loss_and_grads(7)), strict=True
    ):
        assert np.array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


@pytest.mark.parametrize("variant", BLOCKS)
def test_decoding_from_a_cache_gives_the_logits_of_the_whole(variant):
    if is_encoder(variant):
        pytest.skip("an encoder does not decode")
    model, params = make_model(variant)
    batch = sequence(variant, [11], source=[6])

    @jax.jit
    def trunk(part, cache, memory):
        return model.apply({"params": params}, part, cache=cache, memory=memory, method="trunk")

    whole, _ = trunk(batch, None, None)
    memory = None
    if is_two(variant):
        memory = model.apply({"params": params}, batch, method="encode")
    cache, start = model.init_cache(1, 16), 0
    for length in (5, 1, 1, 4):
        part = {
            k: batch[k][:, start : start + length] for k in ("inputs", "segment_ids", "positions")
        }
        hidden, cache = trunk(part, cache, memory)
        np.testing.assert_allclose(hidden, whole[:, start : start + length], atol=1e-5)
        start += length


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_counted_without_the_model(variant):
    odd = {"num_layers": 3, "num_heads": 2, "head_dim": 12, "mlp_size": 50, "num_kv_heads": 1}
    for fields in ({}, odd, {"num_encoder_layers": 5, "tie_embeddings": False}):
        config = ModelConfig(**VARIANTS[variant] | fields)
        model = Model(config, VOCAB)
        shapes = jax.eval_shape(lambda m=model: m.init(jax.random.key(0), sequence(variant, [4])))
        counted = sum(flops.num_params(config).values())
        assert counted == sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_loss_is_that_of_knowing_nothing(variant):
    fields = {"hidden_size": 128, "head_dim": 32, "mlp_size": 256, "vocab_size": 4096}
    config = ModelConfig(**VARIANTS[variant] | fields)
    model = Model(config, 4096)
    rng = np.random.default_rng(5)
    ids = lambda: rng.integers(0, 4096, (8, 64), dtype=np.int32)
    batch = {k: np.tile(v, (8, 1)) for k, v in sequence(variant, [64]).items()}
    batch |= {name: ids() for name in ("inputs", "enc_inputs") if name in batch}
    targets = ids()[..., None]

    @jax.jit
    def nats(key):
        log_probs = jax.nn.log_softmax(model.apply(model.init(key, batch), batch))
        return -jnp.take_along_axis(log_probs, targets, -1).mean()

    assert abs(float(nats(jax.random.key(5))) / np.log(4096) - 1) < 0.15
