"""Fused kernels of attention against the plain one; those for TPUs in interpret mode on a CPU."""

import functools
import logging
import re

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from lmjax.nn.kernels import blockwise, cudnn, cudnn_offsets, dispatch, flash, plain, splash
from lmjax.nn.kernels.spec import AttentionSpec, Dropout, How, KeyValues, Tokens
from lmjax.nn.position import alibi_slopes

B, H, K = 2, 2, 16
ONE = How(one_segment=True)


def tokens(*rows, length):
    """Segment ids and positions of rows of segments, padding behind them."""
    segments, positions = np.zeros((2, len(rows), length), np.int32)
    for row, sizes in enumerate(rows):
        start = 0
        for number, size in enumerate(sizes, 1):
            segments[row, start : start + size] = number
            positions[row, start : start + size] = np.arange(size)
            start += size
    return Tokens(jnp.asarray(segments), jnp.asarray(positions))


def make(queries, keys, kv_heads=H, dtype=jnp.float32):
    T, S = queries.segment_ids.shape[1], keys.segment_ids.shape[1]
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    q_BTHK = normal(B, T, H, K) * K**-0.5
    return q_BTHK, KeyValues(normal(B, S, kv_heads, K), normal(B, S, kv_heads, K))


def outcome(kernel, spec, q_BTHK, kv, queries, keys, bias_1HTS):
    """What comes out at real positions, and the gradients of a weighted sum of it."""
    weights_BTHK = jnp.asarray(np.random.default_rng(1).normal(size=q_BTHK.shape), jnp.float32)
    weights_BTHK *= (queries.segment_ids > 0)[:, :, None, None]

    def summed(q_BTHK, kv, bias_1HTS):
        o_BTHK = kernel.attend(spec, q_BTHK, kv, queries, keys, bias_1HTS)
        o_BTHK = jnp.where((queries.segment_ids > 0)[:, :, None, None], o_BTHK, 0)
        return jnp.sum(o_BTHK.astype(jnp.float32) * weights_BTHK), o_BTHK

    wanted = (0, 1) if bias_1HTS is None else (0, 1, 2)
    grad = jax.jit(jax.grad(summed, argnums=wanted, has_aux=True))
    return grad(q_BTHK, kv, bias_1HTS)


class Plain:
    @staticmethod
    def attend(*given):
        return plain.attend(*given, None)


class Blockwise:
    @staticmethod
    def attend(*given):
        return blockwise.attend(*given, None)

    @staticmethod
    def why_not(*_):
        return None


@pytest.fixture(params=[2**9, 2**12, 2**18])
def size_of_tiles(request, monkeypatch):
    """One head of one row at a time, some of them, and all at once."""
    monkeypatch.setattr(blockwise, "_TILE", request.param)


@pytest.fixture
def splash_interpreted(monkeypatch):
    """By its own switch: under `vmap` it is beyond the interpreter of TPUs."""
    made = functools.partial(splash.library.make_splash_mha, interpret=True)
    monkeypatch.setattr(splash.library, "make_splash_mha", made)


@pytest.fixture
def flash_interpreted():
    with pltpu.force_tpu_interpret_mode():
        yield


def assert_same(kernel, spec, queries, keys, bias_1HTS=None, kv_heads=H):
    given = (spec, *make(queries, keys, kv_heads), queries, keys, bias_1HTS)
    assert kernel.why_not(spec, given[1], given[2], bias_1HTS, False) is None
    expected, found = outcome(Plain, *given), outcome(kernel, *given)
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("causal", "window", "kv_heads"),
    [(True, None, 2), (False, None, 1), (True, 20, 1), (False, 20, 2)],
)
@pytest.mark.usefixtures("splash_interpreted")
def test_splash_is_the_plain_one(causal, window, kv_heads):
    packed = tokens([70, 60], [100], length=130)
    assert_same(splash, AttentionSpec(causal, window), packed, packed, kv_heads=kv_heads)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2)])
@pytest.mark.usefixtures("splash_interpreted")
def test_splash_has_alibi_of_many_positions(heads, kv_heads, monkeypatch):
    monkeypatch.setitem(globals(), "H", heads)  # 6 have slopes that are no powers of two
    packed = tokens([700, 60], [760], length=770)
    assert_same(splash, AttentionSpec(True, alibi=True), packed, packed, kv_heads=kv_heads)


def test_splash_has_no_alibi_of_later_keys():
    packed = tokens([5, 3], [7], length=8)
    why_not = splash.why_not(AttentionSpec(False, alibi=True), *make(packed, packed), None, False)
    assert "earlier keys only" in why_not


def test_alibi_in_bfloat16_is_exact():
    """What queries and keys have more of, as bfloat16 has it, to its last bit of float32."""
    packed = tokens([2000], [1900], length=2048)
    q_BTHK, kv = make(packed, packed, dtype=jnp.bfloat16)
    q, k = splash._with_alibi(q_BTHK, kv.k_BSGK, packed)
    exactly = lambda x: np.asarray(x[..., K:], np.float64)
    found = np.einsum("bthp,bshp->bhts", exactly(q)[:, :1], exactly(k))
    slopes = np.asarray(alibi_slopes(H), np.float64)
    expected = slopes[:, None, None] * np.asarray(packed.positions, np.float64)[:, None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.usefixtures("splash_interpreted")
def test_splash_looks_at_an_encoder():
    queries, keys = tokens([20, 10], [30], length=30), tokens([80, 60], [100], length=140)
    assert_same(splash, AttentionSpec(causal=False), queries, keys)


@pytest.mark.parametrize(("causal", "kv_heads"), [(True, 1), (False, 2)])
@pytest.mark.usefixtures("flash_interpreted")
def test_flash_has_a_bias_with_its_gradient(causal, kv_heads):
    packed = tokens([70, 60], [100], length=130)
    bias_1HTS = jnp.asarray(np.random.default_rng(2).normal(size=(1, H, 130, 130)), jnp.float32)
    assert_same(flash, AttentionSpec(causal), packed, packed, bias_1HTS, kv_heads)


@pytest.mark.parametrize(
    ("spec", "kv_heads"),
    [
        (AttentionSpec(True), 2),
        (AttentionSpec(False), 1),
        (AttentionSpec(True, window=20), 1),
        (AttentionSpec(False, window=20), 2),
        (AttentionSpec(True, alibi=True), 2),
    ],
)
@pytest.mark.usefixtures("size_of_tiles")
def test_blockwise_is_the_plain_one(spec, kv_heads):
    packed = tokens([150, 60], [210], length=270)
    assert_same(Blockwise, spec, packed, packed, kv_heads=kv_heads)


@pytest.mark.usefixtures("size_of_tiles")
def test_blockwise_looks_at_an_encoder():
    queries, keys = tokens([20, 10], [30], length=30), tokens([80, 60], [100], length=140)
    assert_same(Blockwise, AttentionSpec(causal=False), queries, keys)


@pytest.mark.parametrize(("causal", "kv_heads"), [(True, 1), (False, 2)])
@pytest.mark.usefixtures("size_of_tiles")
def test_blockwise_has_a_bias_with_its_gradient(causal, kv_heads):
    packed = tokens([70, 60], [100], length=130)
    bias_1HTS = jnp.asarray(np.random.default_rng(2).normal(size=(1, H, 130, 130)), jnp.float32)
    assert_same(Blockwise, AttentionSpec(causal), packed, packed, bias_1HTS, kv_heads)


@pytest.mark.parametrize("kernel", [blockwise, plain])
def test_dropout_has_its_gradient_and_mean(kernel):
    packed = tokens([12, 6], [15], length=20)
    q_BTHK, kv = make(packed, packed)

    def mixed(q_BTHK, kv, seed=0):
        dropout = Dropout(0.25, jax.random.key(seed))
        return kernel.attend(AttentionSpec(True), q_BTHK, kv, packed, packed, None, dropout)

    jax.test_util.check_grads(mixed, (q_BTHK, kv), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)
    many = jax.jit(jax.vmap(functools.partial(mixed, q_BTHK, kv)))(np.arange(2000))
    expected = Plain.attend(AttentionSpec(True), q_BTHK, kv, packed, packed, None)
    real = packed.segment_ids > 0
    np.testing.assert_allclose(many.mean(0)[real], expected[real], atol=6 * 0.6 / 2000**0.5)
    assert np.abs(many[0] - expected)[real].max() > 0.1


def test_dropout_of_a_row_is_the_same_whatever_is_computed_with_it(monkeypatch):
    packed = tokens([12, 6], [15], length=20)
    given = (AttentionSpec(True), *make(packed, packed), packed, packed, None)
    dropout = Dropout(0.25, jax.random.key(0))
    whole = blockwise.attend(*given, dropout)
    monkeypatch.setattr(blockwise, "_TILE", 1)
    np.testing.assert_allclose(blockwise.attend(*given, dropout), whole, atol=1e-6)


def test_what_a_kernel_cannot_do_is_said_once_and_done_plainly(caplog):
    packed = tokens([5, 3], [7], length=8)
    q_BTHK, kv = make(packed, packed)
    caplog.set_level(logging.INFO, logger="lmjax")
    dispatch._say_once.cache_clear()
    for kernel, alibi in (("splash", True), ("flash", True), ("cudnn", False)):
        spec = AttentionSpec(not alibi, alibi=alibi, how=How(kernel))
        given = (q_BTHK, kv, packed, packed, None, None)
        for _ in range(2):
            found = dispatch.attend(spec, *given)
        assert (found == plain.attend(spec, *given)).all()
    lines = [record.message for record in caplog.records]
    assert len(lines) == 3
    assert all(line.startswith("attention by plain products: ") for line in lines)
    assert "ALiBi" in lines[0]
    assert "float32" in lines[2]


@pytest.mark.parametrize(
    ("spec", "bias", "words"),
    [
        (AttentionSpec(True), False, None),
        (AttentionSpec(False, window=8), False, None),
        (AttentionSpec(False, how=ONE), True, None),
        (AttentionSpec(False), True, "no gradient of a bias"),
        (AttentionSpec(False, window=8, how=ONE), True, "no gradient of a bias"),
        (AttentionSpec(True, alibi=True), False, "ALiBi"),
    ],
)
def test_what_cudnn_is_asked_for(spec, bias, words):
    packed = tokens([5, 3], [7], length=8)
    q_BTHK, kv = make(packed, packed, dtype=jnp.bfloat16)
    bias_1HTS = jnp.zeros((1, H, 8, 8)) if bias else None
    why_not = cudnn.why_not(spec, q_BTHK, kv, bias_1HTS, False)
    assert (why_not is None) if words is None else (words in why_not)
    assert "dropout" in cudnn.why_not(AttentionSpec(True), q_BTHK, kv, None, True)


@jax.custom_vjp
def no_gradient_outside(x, inside):
    """x where it is read; its gradient is not written elsewhere, and may be anything there."""
    return jnp.where(inside, x, 0)


no_gradient_outside.defvjp(
    lambda x, inside: (no_gradient_outside(x, inside), inside),
    lambda inside, slope: (jnp.where(inside, slope, jnp.nan), None),
)


def by_offsets(q, k, v, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, scale, mask_type):
    """What JAX says of its own function: segments by first position and length, -1: there is none.

    As in the example of its docstring and in its test (`tests/fused_attention_stablehlo_test.py`).
    """

    def tokens_of(x, lengths, starts):
        assert lengths.dtype == starts.dtype == jnp.int32
        assert starts.shape == (lengths.shape[0], lengths.shape[1] + 1)
        at = jnp.arange(x.shape[1])[None, :, None]
        lengths, starts = lengths[:, None], starts[:, None, :-1]
        inside = (starts >= 0) & (at >= starts) & (at < starts + lengths)
        number = jnp.sum(inside * jnp.arange(1, lengths.shape[2] + 1), axis=2)
        return Tokens(number, jnp.broadcast_to(at[..., 0], number.shape))

    queries, keys = tokens_of(q, q_seqlen, q_offsets), tokens_of(k, kv_seqlen, kv_offsets)
    reals = [(of.segment_ids > 0)[..., None, None] for of in (queries, keys, keys)]
    q, k, v = (no_gradient_outside(x, real) for x, real in zip((q, k, v), reals, strict=True))
    causal = mask_type == cudnn_offsets.library.MaskType.CAUSAL
    spec = AttentionSpec(causal=causal)
    o = plain.attend(spec, q * scale, KeyValues(k, v), queries, keys, None, None)
    return jnp.where(reals[0], o, jnp.nan)


@pytest.fixture
def hopper(monkeypatch):
    """A machine whose GPU and cuDNN have offsets."""
    library = cudnn_offsets.library
    monkeypatch.setattr(library, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(library, "check_cudnn_version", lambda: 91_000)
    monkeypatch.setattr(
        library, "is_cuda_compute_capability_equal", lambda capability: False, raising=False
    )


@pytest.fixture
def offsets_emulated(monkeypatch, hopper):
    monkeypatch.setattr(cudnn_offsets.library, "dot_product_attention", by_offsets)
    monkeypatch.setattr(cudnn, "attend", Plain.attend)
    monkeypatch.setattr(cudnn, "_TYPES", (jnp.float32,))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("most", [2, 32])
@pytest.mark.usefixtures("offsets_emulated")
def test_offsets_are_the_plain_one(causal, most, monkeypatch):
    """Of two segments at most, too: then rows of three go by a mask."""
    monkeypatch.setattr(cudnn_offsets, "_MOST_SEGMENTS", most)
    packed = tokens([20, 1, 13], [30], length=40)
    assert_same(cudnn_offsets, AttentionSpec(causal), packed, packed)


@pytest.mark.usefixtures("offsets_emulated")
def test_offsets_look_at_an_encoder():
    queries, keys = tokens([6, 10, 2], [30], length=30), tokens([80, 60], [100], length=150)
    given = (AttentionSpec(False), *make(queries, keys), queries, keys, None)
    seen = np.isin(queries.segment_ids, (1, 2))  # the third segment has no keys to look at
    found, expected = (kernel.attend(*given) for kernel in (cudnn_offsets, Plain))
    np.testing.assert_allclose(found[seen], expected[seen], atol=1e-5)
    only = tokens([6, 12], [30], length=30)
    assert_same(cudnn_offsets, AttentionSpec(False), only, keys)


@pytest.mark.usefixtures("hopper")
def test_offsets_lower_to_one_call_of_cudnn():
    """Forward and back, by JAX's own function, for GPUs that need not be here."""
    packed = tokens([5, 3], [7], length=8)
    q_BTHK, kv = make(packed, packed, dtype=jnp.bfloat16)
    given = (AttentionSpec(True), q_BTHK, kv, packed, packed, None)
    assert cudnn_offsets.why_not(*given[:3], None, False) is None
    step = jax.jit(lambda q, kv: outcome(cudnn_offsets, given[0], q, kv, *given[3:]))
    text = step.trace(q_BTHK, kv).lower(lowering_platforms=("cuda",)).as_text()
    for name in ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"):
        calls = [line for line in text.splitlines() if f"@{name}(" in line]
        assert len(calls) == 1
        most = cudnn_offsets._MOST_SEGMENTS
        assert re.search(rf"max_seg_per_batch\W+(22: )?{most}\b", calls[0])


@pytest.mark.parametrize(
    ("spec", "kv_heads", "bias", "words"),
    [
        (AttentionSpec(True), 2, False, None),
        (AttentionSpec(True, how=ONE), 2, False, "one text"),
        (AttentionSpec(True, window=4), 2, False, "windows"),
        (AttentionSpec(True), 1, False, "grouped heads"),
        (AttentionSpec(True), 2, True, "no bias"),
        (AttentionSpec(True, alibi=True), 2, False, "ALiBi"),
    ],
)
@pytest.mark.usefixtures("hopper")
def test_what_offsets_are_asked_for(spec, kv_heads, bias, words):
    packed = tokens([5, 3], [7], length=8)
    q_BTHK, kv = make(packed, packed, kv_heads, dtype=jnp.bfloat16)
    bias_1HTS = jnp.zeros((1, H, 8, 8)) if bias else None
    why_not = cudnn_offsets.why_not(spec, q_BTHK, kv, bias_1HTS, False)
    assert (why_not is None) if words is None else (words in why_not)


def test_offsets_need_a_gpu_of_today():
    packed = tokens([5, 3], [7], length=8)
    q_BTHK, kv = make(packed, packed, dtype=jnp.bfloat16)
    why_not = cudnn_offsets.why_not(AttentionSpec(True), q_BTHK, kv, None, False)
    assert "Hopper" in why_not
