"""Kernels of attention on the layers of a config: time forward and back, and error to float64.

Segments are those of a real batch, queries, keys and values random. The reference is the formula
in NumPy, in float64, on the first row.

Shape suffixes as in `lmjax.nn.attention`.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.batch import Batch, device_fields
from lmjax.config import Config
from lmjax.nn import stack
from lmjax.nn.kernels import dispatch, plain
from lmjax.nn.kernels.spec import (
    AttentionSpec,
    How,
    KeyValues,
    Tokens,
    device_of,
    kernels_of,
)
from lmjax.nn.position import alibi_slopes
from lmjax.train import data as data_lib
from lmjax.train import setup
from lmjax.train.data import Stores

_TIMES = 4  # calls in a block


@dataclass(frozen=True)
class Kernel:
    """Seconds of a call, and errors as shares of the largest value.

    Attributes:
      forward: of the result alone.
      both: of the result and all gradients.
      error: of the result.
      gradient_error: of the gradients by queries, keys, values and bias: the largest.
    """

    forward: float
    both: float
    error: float
    gradient_error: float


@dataclass(frozen=True)
class Layer:
    """One kind of layer: what each kernel makes of it, and which cannot, and why."""

    kernels: dict[str, Kernel]
    failed: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Given:
    """What attention is called with."""

    spec: AttentionSpec
    q_BTHK: jax.Array
    kv: KeyValues
    queries: Tokens
    keys: Tokens
    bias_1HTS: jax.Array | None


def measure(config: Config, stores: Stores, seconds: float = 60.0) -> dict[str, Layer]:
    """Times every kernel that this machine has, for about so long and at least once.

    Args:
      config: resolved.
      stores: its text.
      seconds: how long in all, compilation apart.
    """
    program = setup.make_program(config, ids=setup.make_ids(config, stores.tokenizer))
    batch = data_lib.all_train_batches(config, stores, program.objective)(0)
    fields = {k: v[: program.micro_rows] for k, v in device_fields(batch).items()}
    layers = _layers(config, program.model.how, fields, program.model.dtype)
    seconds /= len(layers)
    return {
        name: _measure(given, program.device.platform, seconds) for name, given in layers.items()
    }


def _layers(config: Config, how: How, batch: Batch, dtype: Any) -> dict[str, _Given]:
    """The kinds of layers that a model has, with what they are given."""
    model, found = config.model, {}
    of = Tokens(jnp.asarray(batch["segment_ids"]), jnp.asarray(batch["positions"]))
    kinds = {"": (stack.layout(model, how), of)}
    if model.architecture == "encoder_decoder":
        source = Tokens(jnp.asarray(batch["enc_segment_ids"]), jnp.asarray(batch["enc_positions"]))
        kinds = {
            "encoder": (stack.encoder_layout(model, how), source),
            "decoder": (stack.layout(model, how), of),
        }
        cross = AttentionSpec(causal=False, how=how)
        found["decoder to encoder"] = _random(config, cross, of, source, dtype, False)
    for side, (layout, tokens) in kinds.items():
        for block in (*layout.prefix, *layout.unit, *layout.suffix):
            spec = block.attention
            window = "all" if spec.window is None else f"window of {spec.window}"
            name = f"{side}{', ' * bool(side)}{'causal' if spec.causal else 'both ways'}, {window}"
            biased = model.position == "relative"
            found.setdefault(name, _random(config, spec, tokens, tokens, dtype, biased))
    return found


def _random(
    config: Config, spec: AttentionSpec, queries: Tokens, keys: Tokens, dtype: Any, biased: bool
) -> _Given:
    model, rng = config.model, np.random.default_rng(0)
    (B, T), S = queries.segment_ids.shape, keys.segment_ids.shape[1]
    H, G, K = model.num_heads, model.kv_heads, model.head_width
    normal = lambda *shape, dtype=dtype: jnp.asarray(rng.normal(size=shape), dtype)
    bias_1HTS = normal(1, H, T, S, dtype=jnp.float32) if biased else None
    q_BTHK = normal(B, T, H, K) * jnp.asarray(K**-0.5, dtype)
    kv = KeyValues(normal(B, S, G, K), normal(B, S, G, K))
    return _Given(spec, q_BTHK, kv, queries, keys, bias_1HTS)


def _measure(given: _Given, platform: str, seconds: float) -> Layer:
    truth, kernels, failed = _reference(_first_row(given)), {}, {}
    for name in kernels_of(platform):
        if device_of(name) is not None:
            module = importlib.import_module(f"lmjax.nn.kernels.{name}")
            why_not = module.why_not(given.spec, given.q_BTHK, given.kv, given.bias_1HTS, False)
            if why_not is not None:
                failed[name] = why_not
                continue
        kernels[name] = _Timed(name, given, truth)
    end = time.monotonic() + seconds
    while not kernels["xla"].forward or time.monotonic() < end:
        for timed in kernels.values():
            timed.block()
    return Layer({name: timed.result() for name, timed in kernels.items()}, failed)


class _Timed:
    """One kernel on one layer."""

    def __init__(self, kernel: str, given: _Given, truth: tuple[np.ndarray, ...]) -> None:
        self._given = given
        self._forward, self._both = _compiled(kernel, given)
        self.forward: list[float] = []
        self.both: list[float] = []
        row = _first_row(given)
        forward, both = _compiled(kernel, row)
        found = (forward(row), *jax.tree.leaves(both(row)))
        errors = [
            np.abs(np.asarray(mine, np.float64) - true).max() / np.abs(true).max()
            for mine, true in zip(found, truth, strict=True)
        ]
        self._errors = float(errors[0]), float(max(errors[1:]))
        for call in (self._forward, self._both):
            jax.block_until_ready(call(given))  # compiles

    def block(self) -> None:
        for call, times in ((self._forward, self.forward), (self._both, self.both)):
            began = time.perf_counter()
            for _ in range(_TIMES):
                found = call(self._given)
            jax.block_until_ready(found)
            times.append((time.perf_counter() - began) / _TIMES)

    def result(self) -> Kernel:
        return Kernel(statistics.median(self.forward), statistics.median(self.both), *self._errors)


def _compiled(kernel: str, given: _Given) -> tuple[Callable, Callable]:
    """(result at real positions, gradients of its weighted sum) of what is given."""
    spec = replace(given.spec, how=replace(given.spec.how, kernel=kernel))

    def forward(q_BTHK, kv, bias_1HTS):
        o_BTHK = dispatch.attend(spec, q_BTHK, kv, given.queries, given.keys, bias_1HTS, None)
        return jnp.where(_real(given)[..., None, None], o_BTHK, 0)

    def summed(*args):
        return jnp.sum(forward(*args).astype(jnp.float32) * _weights(given))

    argnums = (0, 1) if given.bias_1HTS is None else (0, 1, 2)
    both = jax.jit(jax.grad(summed, argnums))
    forward, args = jax.jit(forward), lambda given: (given.q_BTHK, given.kv, given.bias_1HTS)
    return lambda given: forward(*args(given)), lambda given: both(*args(given))


def _real(given: _Given) -> jax.Array:
    return given.queries.segment_ids > 0


def _weights(given: _Given) -> np.ndarray:
    """Any: what the gradients are of."""
    return np.random.default_rng(1).normal(size=given.q_BTHK.shape).astype(np.float32)


def _first_row(given: _Given) -> _Given:
    first = partial(jax.tree.map, lambda x: x[:1])
    parts = {name: first(getattr(given, name)) for name in ("q_BTHK", "kv", "queries", "keys")}
    return replace(given, **parts)


def _reference(given: _Given) -> tuple[np.ndarray, ...]:
    """Result and gradients of one row by the formula, float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (given.q_BTHK, *given.kv))
    H, G = q.shape[2], k.shape[2]
    k, v = (np.repeat(x, H // G, axis=2) for x in (k, v))
    scores = np.einsum("bthk,bshk->bhts", q, k)
    if given.bias_1HTS is not None:
        scores += np.asarray(given.bias_1HTS, np.float64)
    if given.spec.alibi:
        positions = (np.asarray(x.positions, np.float64) for x in (given.queries, given.keys))
        of_queries, of_keys = positions
        distance = np.abs(of_queries[:, None, :, None] - of_keys[:, None, None, :])
        scores -= alibi_slopes(H)[:, None, None] * distance
    see = np.asarray(plain.visible(given.spec, given.queries, given.keys))[:, None]
    scores = np.where(see, scores, -np.inf)
    real = np.asarray(_real(given))[:, None, :, None]
    scores = np.where(real, scores, 0.0)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p = np.where(real, p / p.sum(-1, keepdims=True), 0.0)
    slope = _weights(given).astype(np.float64)
    dp = np.einsum("bthk,bshk->bhts", slope, v)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))
    grouped = lambda x: x.reshape(*x.shape[:2], G, H // G, x.shape[3]).sum(3)
    found = [
        np.einsum("bhts,bshk->bthk", p, v),
        np.einsum("bhts,bshk->bthk", ds, k),
        grouped(np.einsum("bhts,bthk->bshk", ds, q)),
        grouped(np.einsum("bhts,bthk->bshk", p, slope)),
    ]
    return (*found, ds) if given.bias_1HTS is not None else tuple(found)
