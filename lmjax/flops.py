"""Parameters, FLOPs and memory from the config alone: one counter for MFU, estimates and plans.

Model FLOPs are those the architecture needs, forward and backward: three times a forward pass of
two per multiply-add. Look-ups are free, the head counts once and only where something is predicted,
recomputation does not count. Attention counts every pair of positions (the convention of PaLM,
Chowdhery et al. 2022, appendix B); `causal` has half of it where the mask hides half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lmjax.config import Config
from lmjax.model_config import ModelConfig


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
    norm = d * (2 if model.norm_has_bias else 1)
    final = norm if model.has_final_norm else 0
    two = model.architecture == "encoder_decoder"
    table = model.relative_buckets * model.num_heads * (model.position == "relative")
    placed = model.token_types * d + model.embedding_norm * norm
    if model.position == "learned":
        placed += (model.position_offset + model.max_positions) * d
    parts = {"embed": v * d + placed}
    once = final + table - (0 if model.first_attention_norm else norm)
    if two:
        layers = model.encoder_layers * _block(model, norm, cross=False)
        parts["encoder"] = model.encoder_embeddings * v * d + placed + layers + once
    parts["stack"] = model.num_layers * _block(model, norm, cross=two) + once
    if model.predicts_tokens:
        head = 0 if model.tie_embeddings else v * d
        if model.head == "mlm" or model.frozen_logits_bias:
            head += v
    else:
        head = (d + 1) * (model.num_outputs + d * model.has_pooler)
    if model.has_transform:
        head += d * d + d * model.use_bias + norm
    return parts | ({"head": head} if head else {})


def _block(model: ModelConfig, norm: int, *, cross: bool) -> int:
    kernels = _kernels(model)
    biases = (model.num_heads + 2 * model.kv_heads) * model.head_width + model.hidden_size
    mlp_biases = (2 if model.mlp_gated else 1) * model.mlp_width + model.hidden_size
    width = 1 if model.qk_norm == "none" else norm // model.hidden_size  # scale, and bias if any
    normed = {
        "none": 0,
        "head": 2 * model.head_width,
        "all": (model.num_heads + model.kv_heads) * model.head_width,
    }[model.qk_norm]
    attention = kernels.attention + biases * model.attention_has_bias + norm + width * normed
    mlp = kernels.mlp + mlp_biases * model.mlp_has_bias + norm
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
    # Scores and mixing are two multiply-adds a pair.
    square = width * sum(_pairs(model, layer, t) for layer in range(model.num_layers))
    hidden = square / 2 if model.architecture != "encoder" else 0
    other = 0.0
    if model.architecture == "encoder_decoder":
        matmul += model.encoder_layers * (kernels.attention + kernels.mlp) * s
        matmul += model.num_layers * (kernels.cross_queries * t + kernels.cross_keys * s)
        other = width * sum(_pairs(model, layer, s) for layer in range(model.encoder_layers))
        other += model.num_layers * width * t * s
    head = model.hidden_size * _outputs(model)
    if model.has_transform or model.has_pooler:
        head += model.hidden_size**2
    full = 6 * (matmul + head * row.predicted) + 12 * (square + other)
    return Flops(full, full - 12 * hidden)


def _outputs(model: ModelConfig) -> int:
    """Logits of each hidden state that the head sees."""
    return model.vocab_size if model.predicts_tokens else model.num_outputs


def _pairs(model: ModelConfig, layer: int, length: int) -> int:
    """Pairs of positions that self-attention of one layer looks at, ends of the row neglected."""
    return length * (min(length, 2 * (model.window // 2) + 1) if model.is_local(layer) else length)


def flops_per_token(model: ModelConfig, row: Lengths) -> Flops:
    """Model FLOPs of training per id read."""
    per_row = flops_per_row(model, row)
    return Flops(per_row.full / row.tokens, per_row.causal / row.tokens)


@dataclass(frozen=True)
class Split:
    """Into how many parts a mesh splits what a step holds.

    Attributes:
      rows: of the batch.
      state: parameters and moments.
      tensor: heads, inner widths and vocabulary.
      sequence: positions of what goes from block to block, where it divides them.
    """

    rows: int = 1
    state: int = 1
    tensor: int = 1
    sequence: int = 1

    def positions(self, length: int) -> float:
        """Of a row between the blocks, on each device."""
        return length / (self.sequence if length % self.sequence == 0 else 1)


@dataclass(frozen=True)
class Computing:
    """How a device computes a step, as far as its memory goes.

    Attributes:
      dtype_bytes: of the compute type.
      split: what of the whole it holds.
      keeps_scores: whether all probabilities of attention are there, and kept for the way back.
      chunk_positions: of all rows, whose logits are made at a time unless the config says how many;
        None: as the memory has it.
      lanes: elements that the last dim of an array is filled up to a multiple of: that of a head,
        where a kernel of attention takes the heads apart. 1: such arrays are not kept.
    """

    dtype_bytes: int
    split: Split = Split()
    keeps_scores: bool = True
    chunk_positions: int | None = None
    lanes: int = 1


def memory(
    config: Config,
    row: Lengths,
    rows: int,
    how: Computing,
    *,
    accumulates: bool,
    chunk: int | None = None,
) -> dict[str, int]:
    """Estimated bytes at the peak of a training step on one device.

    Term by term what the layers keep for their way back; the tests hold it against XLA's figures.

    Args:
      config: with `model.vocab_size` set.
      row: lengths of a row.
      rows: of a micro-batch on this device.
      how: it computes.
      accumulates: whether there are several micro-batches to a step.
      chunk: positions of a row whose logits are there at a time; None: all.

    Returns:
      parameters, optimizer, gradients, activations (what the blocks keep) and work (the larger of
      the logits with their gradient and one block's way back).
    """
    model, policy, split, dtype_bytes = config.model, config.train.remat, how.split, how.dtype_bytes
    parts = num_params(model)
    number = sum(parts.values())
    block_bytes = partial(_block_bytes, model, how=how)
    blocks = [(model.num_layers, block_bytes(row.target, row.source))]
    if row.source:
        blocks.append((model.encoder_layers, block_bytes(row.source, 0)))
    kept = sum(layers * block[policy] for layers, block in blocks)
    between = split.positions(row.target) + split.positions(row.source)
    kept += 3 * dtype_bytes * model.hidden_size * between
    transient = max(block["transient"] for _, block in blocks)
    if policy != "none":  # what was not kept comes back, one block at a time
        transient += max(block["none"] for _, block in blocks)
    logits = _logits_bytes(model, row, chunk) / split.tensor
    if chunk is not None:  # gradients of all hidden states are there before the blocks' way back
        kept += dtype_bytes * model.hidden_size * row.predicted
    # In a smaller type the matrices are cast once and the copies kept for the way back.
    cast = dtype_bytes * number // split.state if dtype_bytes < _FLOAT32 else 0
    return {
        "parameters": _FLOAT32 * number // split.state,
        "optimizer": _optimizer_bytes(config, number) // split.state,
        # Besides the sum over micro-batches there is the gradient of the present one.
        "gradients": _FLOAT32 * number * (2 if accumulates else 1) // split.state,
        "activations": int(rows * kept) + cast,
        "work": int(rows * max(logits, transient)),
    }


_FLOAT32 = 4
_MOST_LOGITS, _CHUNK_LOGITS = 1 / 10, 1 / 40  # of the memory: all at once, and of a chunk


def _logits_bytes(model: ModelConfig, row: Lengths, chunk: int | None = None) -> int:
    """Of the logits of a row, or of a chunk of its positions, with their gradient."""
    return 2 * _FLOAT32 * _outputs(model) * min(row.predicted, chunk or row.predicted)


def loss_chunk(config: Config, row: Lengths, rows: int, budget: int, how: Computing) -> int | None:
    """Positions of a row whose logits are made at a time, as the config says; None: all.

    Args:
      config: resolved.
      row: lengths of a row.
      rows: of a micro-batch on a device.
      budget: bytes that a step may take on each device.
      how: it computes.
    """
    asked, model = config.train.loss_chunk, config.model
    if not model.predicts_tokens or asked is None:
        return None
    if asked != "auto":
        return min(asked, row.predicted)
    if how.chunk_positions is not None:
        chunk = max(1, how.chunk_positions // rows)
        return chunk if 2 * chunk <= row.predicted else None
    of_position = rows * _logits_bytes(model, row, 1)
    if of_position * row.predicted <= budget * _MOST_LOGITS:
        return None
    return max(1, int(budget * _CHUNK_LOGITS) // of_position)


def _optimizer_bytes(config: Config, number: int) -> int:
    if config.optimizer.name == "lion":
        return _FLOAT32 * number
    if config.optimizer.name == "muon":  # one moment inside the layers, two outside
        parts = num_params(config.model)
        return _FLOAT32 * (number + parts["embed"] + parts.get("head", 0))
    if config.optimizer.name != "adafactor":
        return 2 * _FLOAT32 * number
    # Adafactor keeps the rows and columns of every matrix, about its sides.
    model = config.model
    sides = 6 * model.hidden_size + 3 * model.num_heads * model.head_width + 3 * model.mlp_width
    layers = model.num_layers + model.encoder_layers
    return _FLOAT32 * (model.vocab_size + model.hidden_size + layers * sides)


def _block_bytes(
    model: ModelConfig, length: int, memory: int, *, how: Computing
) -> dict[str, float]:
    """Bytes of one row in one block: what each remat policy keeps, and what the way back needs.

    Args:
      model: shape of the block.
      length: positions of the row.
      memory: positions that cross-attention looks at; 0: there is none.
      how: it is computed.
    """
    b, tensor = how.dtype_bytes, how.split.tensor
    D, M, H = model.hidden_size, model.mlp_width / tensor, model.num_heads / tensor
    up = 2 if model.mlp_gated else 1
    pairs = H * length * (length + memory) * how.keeps_scores
    attentions = 2 if memory else 1
    stream = D * how.split.positions(length)
    queries = attentions * length * H * model.head_width
    keys = 2 * (length + memory) * model.kv_heads / tensor * model.head_width
    # Norms (normalised and scaled), q, k, v, probabilities, mixed values; the MLP's inputs to its
    # products and its activation's slope.
    norms = (attentions + 1) * 2 * stream
    filled = -(-model.head_width // how.lanes) * how.lanes / model.head_width
    again = queries if how.lanes > 1 else 0  # mixed values with their heads together
    heads = filled * (2 * queries + keys) + again
    everything = b * (norms + heads + pairs + 2 * up * M * length)
    if model.dropout:  # masks of a byte, and the probabilities after dropout
        everything += 2 * stream + pairs * (1 + b)
    post = stream * (model.norm_placement == "post")
    dots = b * (filled * (queries + keys) + (attentions + 1) * stream + up * M * length + post)
    # Gradients under way: of scores and probabilities in float32, or of the MLP's inner arrays.
    largest = H * length * max(length, memory) * how.keeps_scores
    transient = max(2 * _FLOAT32 * largest, 2 * b * M * up * length) + 2 * b * D * length
    if stream < D * length:  # products and their way back see all positions, for which they gather
        transient += 2 * b * D * length
    return {"none": everything, "dots": dots, "full": b * stream, "transient": transient}


def largest_micro_batch(config: Config, row: Lengths, budget: int, how: Computing) -> int:
    """Rows of the largest micro-batch that fits: a divisor of the global batch.

    Args:
      config: resolved.
      row: lengths of a row.
      budget: bytes that a step may take on each device.
      how: it computes; the parts of the rows divide the answer.

    Returns:
      Rows over all devices, at least one for each shard.
    """
    batch, split = config.train.global_batch_size, how.split
    for rows in range(batch, split.rows, -1):
        if batch % rows or rows % split.rows:
            continue
        parts = memory(
            config,
            row,
            rows // split.rows,
            how,
            accumulates=rows < batch,
            chunk=loss_chunk(config, row, rows // split.rows, budget, how),
        )
        if sum(parts.values()) <= budget:
            return rows
    return split.rows
