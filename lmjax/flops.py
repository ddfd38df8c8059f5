"""Parameters, FLOPs and memory from the config alone: one counter for MFU, estimates and plans.

Model FLOPs are those the architecture needs, forward and backward: three times a forward pass of
two per multiply-add. Look-ups are free, the head counts once and only where something is predicted,
recomputation does not count. Attention counts every pair of positions (the convention of PaLM,
Chowdhery et al. 2022, appendix B); `causal` has half of it where the mask hides half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmjax.config import Config, ModelConfig

# Dense bfloat16 peak of one chip by datasheet, FLOP/s; the first name found in the device's kind.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Datasheet peak of a chip, FLOP/s; None where it is not known."""
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device_kind), None)


@dataclass(frozen=True)
class Lengths:
    """Positions of one row of a batch; `source` is 0 without an encoder beside the decoder."""

    target: int
    source: int
    predicted: int

    @property
    def tokens(self) -> int:
        """Ids the model reads."""
        return self.target + self.source


def lengths(spec: Mapping[str, tuple[tuple[int, ...], Any]]) -> Lengths:
    """The lengths that a batch's fields say (`lmjax.batch.Objective.spec`)."""
    source = spec["enc_inputs"][0][1] if "enc_inputs" in spec else 0
    return Lengths(spec["inputs"][0][1], source, spec["targets"][0][1])


@dataclass(frozen=True)
class _Kernels:
    """Weights of one block that a token is multiplied by."""

    attention: int
    cross_queries: int
    cross_keys: int
    mlp: int


def _kernels(model: ModelConfig) -> _Kernels:
    queries = 2 * model.hidden_size * model.num_heads * model.head_width  # and the output
    keys = 2 * model.hidden_size * model.kv_heads * model.head_width  # and the values
    return _Kernels(
        attention=queries + keys,
        cross_queries=queries,
        cross_keys=keys,
        mlp=(3 if model.mlp_gated else 2) * model.hidden_size * model.mlp_width,
    )


def num_params(model: ModelConfig) -> dict[str, int]:
    """Number of parameters by part; exact.

    Args:
      model: with `vocab_size` set.
    """
    d, v = model.hidden_size, model.vocab_size
    norm = d * (2 if model.use_bias and model.norm == "layernorm" else 1)
    final = norm if model.norm_placement == "pre" else 0
    two = model.architecture == "encoder_decoder"
    table = model.relative_buckets * model.num_heads * (model.position == "relative")
    embed = v * d + model.token_types * d + model.embedding_norm * norm
    if model.position == "learned":
        embed += model.max_positions * d
    parts = {"embed": embed}
    if two:
        parts["encoder"] = model.encoder_layers * _block(model, norm, cross=False) + final + table
    parts["stack"] = model.num_layers * _block(model, norm, cross=two) + final + table
    head = 0 if model.tie_embeddings else v * d
    if model.head == "mlm":
        head += d * d + d * model.use_bias + norm + v
    return parts | ({"head": head} if head else {})


def _block(model: ModelConfig, norm: int, *, cross: bool) -> int:
    kernels = _kernels(model)
    biases = (model.num_heads + 2 * model.kv_heads) * model.head_width + model.hidden_size
    mlp_biases = (2 if model.mlp_gated else 1) * model.mlp_width + model.hidden_size
    attention = kernels.attention + biases * model.use_bias + norm
    mlp = kernels.mlp + mlp_biases * model.use_bias + norm
    return attention * (2 if cross else 1) + mlp


@dataclass(frozen=True)
class Flops:
    """Training FLOPs, with full attention and with what a causal mask hides left out."""

    full: float
    causal: float


def flops_per_row(model: ModelConfig, row: Lengths) -> Flops:
    """Model FLOPs of training on one row."""
    kernels, width = _kernels(model), model.num_heads * model.head_width
    t, s = row.target, row.source
    matmul = model.num_layers * (kernels.attention + kernels.mlp) * t
    square = model.num_layers * width * t * t  # scores and mixing, two multiply-adds a pair
    hidden = square / 2 if model.architecture != "encoder" else 0
    other = 0.0
    if model.architecture == "encoder_decoder":
        matmul += model.encoder_layers * (kernels.attention + kernels.mlp) * s
        matmul += model.num_layers * (kernels.cross_queries * t + kernels.cross_keys * s)
        other = model.encoder_layers * width * s * s + model.num_layers * width * t * s
    head = model.hidden_size * model.vocab_size
    if model.head == "mlm":
        head += model.hidden_size**2
    full = 6 * (matmul + head * row.predicted) + 12 * (square + other)
    return Flops(full, full - 12 * hidden)


def flops_per_token(model: ModelConfig, row: Lengths) -> Flops:
    """Model FLOPs of training per id read."""
    per_row = flops_per_row(model, row)
    return Flops(per_row.full / row.tokens, per_row.causal / row.tokens)


def memory(
    config: Config, row: Lengths, rows: int, *, dtype_bytes: int, accumulates: bool
) -> dict[str, int]:
    """Estimated bytes of a training step on one device that holds the whole model.

    Args:
      config: resolved.
      row: lengths of a row.
      rows: of a micro-batch on this device.
      dtype_bytes: of the compute type.
      accumulates: whether there are several micro-batches to a step.
    """
    model = config.model
    number = sum(num_params(model).values())
    moments = 8 * number if config.optimizer.name == "adamw" else _factored_moments(model)
    # Besides the sum over micro-batches there is the gradient of the present one.
    gradients = 4 * number * (2 if accumulates else 1)
    # In bfloat16 the matrices are also held once in the compute type.
    copies = number * dtype_bytes if dtype_bytes < 4 else 0
    return {
        "parameters": 4 * number,
        "optimizer": moments,
        "gradients": gradients + copies,
        "activations": rows * _activations(config, row, dtype_bytes),
        "logits": rows * _LOGITS_COPIES * 4 * row.predicted * model.vocab_size,
    }


# Arrays of the logits' size that live at once: the logits, their softmax, their gradient.
_LOGITS_COPIES = 3


def _factored_moments(model: ModelConfig) -> int:
    """Rows and columns of the second moment: about the sides of every matrix."""
    sides = 2 * model.hidden_size + model.num_heads * model.head_width + model.mlp_width
    layers = model.num_layers + model.encoder_layers
    return 4 * (model.vocab_size + 4 * layers * sides)


def _activations(config: Config, row: Lengths, dtype_bytes: int) -> int:
    """Bytes that the forward pass of one row keeps for the backward pass."""
    model = config.model
    two = model.architecture == "encoder_decoder"
    target = _block_activations(config, row.target, row.target, dtype_bytes)
    if two:
        target += _attention_activations(config, row.target, row.source, dtype_bytes)
    source = _block_activations(config, row.source, row.source, dtype_bytes) if two else 0
    whole = model.num_layers * target + model.encoder_layers * source
    if config.train.remat == "none":
        return whole
    # What is kept between blocks, and one block at a time in full.
    kept = model.num_layers * row.target + model.encoder_layers * row.source
    per_token = model.hidden_size
    if config.train.remat == "dots":
        width = (model.num_heads + 2 * model.kv_heads) * model.head_width
        per_token += width + model.hidden_size + model.mlp_width * (1 + model.mlp_gated)
    return kept * per_token * dtype_bytes + max(target, source)


def _attention_activations(config: Config, queries: int, keys: int, dtype_bytes: int) -> int:
    model = config.model
    width = model.num_heads * model.head_width
    # Normed input, queries, mixed values; keys and values; probabilities (and, in float32 before
    # they are rounded, their scores for the layer at work, which is little beside all layers).
    vectors = queries * (2 * model.hidden_size + 2 * width)
    vectors += keys * 2 * model.kv_heads * model.head_width
    return dtype_bytes * (vectors + model.num_heads * queries * keys)


def _block_activations(config: Config, queries: int, keys: int, dtype_bytes: int) -> int:
    model = config.model
    # Normed input; what the activation takes, gives, and its derivative.
    mlp = queries * (2 * model.hidden_size + (3 + model.mlp_gated) * model.mlp_width)
    return _attention_activations(config, queries, keys, dtype_bytes) + dtype_bytes * mlp


def largest_micro_batch(
    config: Config, row: Lengths, budget: int, shards: int, *, dtype_bytes: int
) -> int:
    """Rows of the largest micro-batch that fits: a divisor of the global batch.

    Args:
      config: resolved.
      row: lengths of a row.
      budget: bytes that a step may take on each device.
      shards: parts that the rows are split into; they divide the answer.
      dtype_bytes: of the compute type.

    Returns:
      Rows over all devices, at least one for each shard.
    """
    batch = config.train.global_batch_size
    for rows in range(batch, shards, -1):
        if batch % rows or rows % shards:
            continue
        parts = memory(
            config, row, rows // shards, dtype_bytes=dtype_bytes, accumulates=rows < batch
        )
        if sum(parts.values()) <= budget:
            return rows
    return shards
