"""Stacks: remat, general layouts, the cache."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lmjax import families
from lmjax.nn.attention import Attention, AttentionSpec, Context, Tokens
from lmjax.nn.block import Block, BlockSpec
from lmjax.nn.kernels.plain import visible
from lmjax.nn.mlp import MLP
from lmjax.nn.model import Model
from lmjax.nn.position import Rope
from lmjax.nn.stack import Layout, Stack, init_caches, layout

LOCAL = BlockSpec(AttentionSpec(causal=False, window=4))
GLOBAL = BlockSpec(AttentionSpec(causal=True))
MIXED = Layout(unit=(LOCAL, LOCAL, GLOBAL), num_units=2, prefix=(GLOBAL,), suffix=(LOCAL,))


def _loss_and_grads(cfg, data, seed=0, **model_fields):
    model = Model(cfg, cases.VOCAB, **model_fields)

    def loss(tree):
        logits = model.apply({"params": tree}, data)
        target = jnp.take_along_axis(logits, data["inputs"][..., None], -1)[..., 0]
        return (jax.nn.logsumexp(logits, -1) - target).mean()

    return jax.jit(jax.value_and_grad(loss))(cases.params(cfg, seed))


@pytest.mark.parametrize("remat", ["dots", "full"])
@pytest.mark.parametrize("unroll", [1, 3])
def test_remat_changes_no_gradient(remat, unroll):
    cfg, data = cases.config(init_std=0.05), cases.batch([9, 7])
    plain = _loss_and_grads(cfg, data)
    other = _loss_and_grads(cfg, data, remat=remat, unroll=unroll)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def _written_out(stack):
    """The blocks of a layout, one by one."""
    return [*stack.prefix, *(stack.unit * stack.num_units), *stack.suffix]


def _single_blocks(cfg, stack, tree, x, tokens):
    """A layout as a plain list of blocks with their own slices of the parameters."""
    params = [tree[f"prefix_{i}"] for i in range(len(stack.prefix))]
    for n in range(stack.num_units):
        for slot in range(len(stack.unit)):
            params.append(jax.tree.map(lambda a, n=n: a[n], tree["unit"][str(slot)]))
    params += [tree[f"suffix_{i}"] for i in range(len(stack.suffix))]
    for spec, p in zip(_written_out(stack), params, strict=True):
        x, _ = Block(cfg, spec, jnp.float32, True).apply({"params": p}, x, Context(tokens, tokens))
    return x


@pytest.mark.parametrize("unroll", [1, 2])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_mixed_layout_is_a_list_of_blocks(unroll, remat):
    cfg, data = cases.config(), cases.batch([9, 7])
    tokens = Tokens(data["segment_ids"], data["positions"])
    x = jax.random.normal(jax.random.key(1), (1, 16, cfg.hidden_size))
    stack = Stack(cfg, MIXED, jnp.float32, remat, unroll)
    tree = nn.meta.unbox(jax.jit(stack.init)(jax.random.key(0), x, Context(tokens, tokens)))[
        "params"
    ]
    assert set(tree) == {"prefix_0", "unit", "suffix_0"}
    assert set(tree["unit"]) == {"0", "1", "2"}
    through, _ = stack.apply({"params": tree}, x, Context(tokens, tokens))
    np.testing.assert_allclose(through, _single_blocks(cfg, MIXED, tree, x, tokens), atol=1e-5)


def _decode(model, variables, data, sizes, max_length):
    """Logits of the batch read in pieces of the given sizes through a cache."""
    step = jax.jit(lambda part, cache: model.apply(variables, part, cache=cache, method="trunk"))
    cache = model.init_cache(len(data["inputs"]), max_length)
    hidden, start = [], 0
    for size in sizes:
        out, cache = step(cases.slots(data, start, start + size), cache)
        hidden.append(out)
        start += size
    assert int(cache.length) == start
    return model.apply(variables, jnp.concatenate(hidden, 1), method="head")


def test_rows_of_different_length_decode_together():
    # The shorter row has its padding in front, as a batch of prompts has.
    cfg = cases.config()
    model, variables = Model(cfg, cases.VOCAB), {"params": cases.params(cfg)}
    short = cases.batch([10])
    data = {
        k: np.concatenate([cases.batch([16])[k], np.roll(v, 6, axis=1)]) for k, v in short.items()
    }
    cached = _decode(model, variables, data, [8] + [1] * 8, max_length=16)
    full = model.apply(variables, short)
    np.testing.assert_allclose(cached[1, 6:], full[0, :10], atol=1e-5)


def test_a_mixed_layout_decodes_too():
    cfg, data = cases.config(), cases.batch([16])
    causal = Layout(unit=(GLOBAL, GLOBAL), num_units=2, prefix=(GLOBAL,), suffix=(GLOBAL,))
    tokens = Tokens(data["segment_ids"], data["positions"])
    x = jax.random.normal(jax.random.key(1), (1, 16, cfg.hidden_size))
    stack = Stack(cfg, causal, jnp.float32, "none", 1)
    variables = nn.meta.unbox(jax.jit(stack.init)(jax.random.key(0), x, Context(tokens, tokens)))
    full, _ = stack.apply(variables, x, Context(tokens, tokens))
    caches, outs = init_caches(cfg, causal, 1, 16, jnp.float32), []
    step = jax.jit(stack.apply)
    for start, stop in ((0, 6), (6, 12), (12, 16)):
        new = jax.tree.map(lambda a, s=start, e=stop: a[:, s:e], tokens)
        seen = Tokens(np.where(np.arange(16) < stop, tokens.segment_ids, 0), tokens.positions)
        out, caches = step(
            variables, x[:, start:stop], Context(new, seen, length=jnp.int32(start)), caches
        )
        outs.append(out)
    np.testing.assert_allclose(jnp.concatenate(outs, 1), full, atol=1e-5)


def _modernbert(num_layers, **fields):
    small = {"num_layers": num_layers, "hidden_size": 32, "num_heads": 4, "mlp_size": 24}
    return cases.config(**families.modernbert.BASE | small | fields)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 5, 7, 22, 28])
def test_every_third_layer_sees_all(num_layers):
    cfg = _modernbert(num_layers)
    blocks = []
    for i in range(num_layers):
        window, theta = (128, 10_000.0) if i % 3 else (None, 160_000.0)
        spec = AttentionSpec(causal=False, window=window, rope=Rope(theta))
        blocks.append(BlockSpec(spec, attention_norm=i > 0))
    stack = layout(cfg)
    assert _written_out(stack) == blocks
    assert (len(stack.prefix), stack.num_units) == (1, (num_layers - 1) // 3)


@pytest.mark.parametrize("every", [None, 1, 2, 4])
@pytest.mark.parametrize("first_norm", [True, False])
def test_other_patterns_and_what_each_layer_sees(every, first_norm):
    cfg = _modernbert(9, window=5, global_every=every, first_attention_norm=first_norm)
    data = cases.batch([9, 7], [12])
    tokens = Tokens(data["segment_ids"], data["positions"])
    segment, position = tokens
    same = segment[:, :, None] == segment[:, None]
    near = abs(position[:, :, None] - position[:, None]) <= 2
    stack = layout(cfg)
    assert stack.num_units >= 2
    for i, block in enumerate(_written_out(stack)):
        whole = every is not None and i % every == 0
        assert (visible(block.attention, tokens, tokens) == (same if whole else same & near)).all()
        assert block.attention_norm == (first_norm or i > 0)


@pytest.mark.parametrize("num_layers", [1, 2, 6])
def test_a_stack_of_few_layers_is_its_blocks(num_layers):
    cfg, data = _modernbert(num_layers, window=4), cases.batch([9, 7])
    tokens = Tokens(data["segment_ids"], data["positions"])
    x = jax.random.normal(jax.random.key(1), (1, 16, cfg.hidden_size))
    stack = Stack(cfg, layout(cfg), jnp.float32, "none", 1)
    context = Context(tokens, tokens)
    tree = nn.unbox(jax.jit(stack.init)(jax.random.key(0), x, context))["params"]
    assert "attention_norm" not in tree["prefix_0"]
    through, _ = stack.apply({"params": tree}, x, context)
    np.testing.assert_allclose(
        through, _single_blocks(cfg, layout(cfg), tree, x, tokens), atol=1e-5
    )


def test_the_first_attention_reads_what_is_there():
    cfg, data = _modernbert(1), cases.batch([9, 7])
    tokens = Tokens(data["segment_ids"], data["positions"])
    context = Context(tokens, tokens)
    x = 3 + jax.random.normal(jax.random.key(1), (1, 16, cfg.hidden_size))
    (spec,) = layout(cfg).prefix
    block = Block(cfg, spec, jnp.float32, True)
    tree = nn.unbox(jax.jit(block.init)(jax.random.key(0), x, context))["params"]
    assert set(tree) == {"attention", "mlp", "mlp_norm"}
    attention = Attention(cfg, spec.attention, jnp.float32, True)
    y = x + attention.apply({"params": tree["attention"]}, x, x, context)[0]
    normed = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-5)
    y = y + MLP(cfg, jnp.float32).apply({"params": tree["mlp"]}, normed)
    np.testing.assert_allclose(block.apply({"params": tree}, x, context)[0], y, atol=1e-4)
