"""One loss for every objective: weighted cross-entropy, as sums.

    loss = sum(weights * -log p(target)) / sum(weights)

Both sums run over devices *and* micro-batches before the one division, since a mean of means weighs
a row with few predictions like a row with many. Beside the loss go the sums that judge it: the same
over `content_weights`, what a unigram model would have paid, right guesses, and UTF-8 bytes; of a
mixture also the loss of each of its K sources.

z-loss (Chowdhery et al. 2022, PaLM, section 5) adds z * log(Z)^2 per prediction, Z the softmax's
normaliser; it is trained on, never reported as loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.batch import SOURCE
from lmjax.train import chunked

_NAMES = (
    "nats",
    "weight",
    "content_nats",
    "content_weight",
    "unigram_nats",
    "content_unigram_nats",
    "correct",
    "bytes",
)
_OF_SOURCES = ("source_nats", "source_weight")
EACH = "each_nats"

Tables = dict[str, jax.Array]


def zeros(num_sources: int = 1) -> dict[str, jax.Array]:
    """The sums of nothing, of each source where there are several."""
    of_all = {name: jnp.zeros((), jnp.float32) for name in _NAMES}
    if num_sources == 1:
        return of_all
    return of_all | {name: jnp.zeros((num_sources,), jnp.float32) for name in _OF_SOURCES}


def by_source(value_B: jax.Array, batch: dict[str, jax.Array], num_sources: int) -> jax.Array:
    """Sums [K] of a value of each row over the rows of each source."""
    is_source_BK = batch[SOURCE][:, None] == jnp.arange(num_sources)
    return jnp.sum(jnp.where(is_source_BK, value_B[:, None], 0), axis=0)


def sums(
    model: nn.Module,
    params: Any,
    batch: dict[str, jax.Array],
    tables: Tables,
    *,
    num_sources: int = 1,
    z_loss: float = 0.0,
    chunk: int | None = None,
    num_shards: int = 1,
    dropout_key: jax.Array | None = None,
    each: bool = False,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The sum to differentiate, and the sums to report.

    Args:
      model: has the methods `trunk` and `predict`.
      params: its parameters.
      batch: device fields of a batch (lmjax.batch), B rows and P predictions.
      tables: per id, float32 [V]: `unigram` and `content_unigram` log-probabilities, `bytes`.
      num_sources: K, where the batch says of each row which source it is from.
      z_loss: weight of log(Z)^2.
      chunk: positions of a row whose logits are made at a time (`chunked`); None: all.
      num_shards: parts that the rows are split into; for chunks.
      dropout_key: None for evaluation.
      each: report what each prediction costs, too.

    Returns:
      A float32 scalar, and a dict of float32 scalars: nats and counts, not means. Those of the
      sources are vectors [K], and `EACH` is [B, P].
    """
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    variables = {"params": params}
    hidden_BTD, _ = model.apply(
        variables, batch, deterministic=dropout_key is None, rngs=rngs, method="trunk"
    )
    targets_BP, weights_BP = batch["targets"], batch["weights"]
    if chunk is not None:
        projected = model.apply(variables, hidden_BTD, batch, method="project_predicted")
        objective, nats_BP, correct_BP = chunked.cross_entropy(
            projected, targets_BP, weights_BP, z_loss, chunk, num_shards
        )
    else:
        logits_BPV = model.apply(
            variables,
            hidden_BTD,
            batch,
            deterministic=dropout_key is None,
            rngs=rngs,
            method="predict",
        )
        log_z_BP = jax.nn.logsumexp(logits_BPV, axis=-1)
        target_BP = jnp.take_along_axis(logits_BPV, targets_BP[..., None], axis=-1)[..., 0]
        nats_BP = log_z_BP - target_BP
        correct_BP = target_BP >= jnp.max(logits_BPV, axis=-1)
        objective = jnp.sum(weights_BP * nats_BP)
        if z_loss:
            objective += z_loss * jnp.sum(weights_BP * jnp.square(log_z_BP))
    content_BP = batch["content_weights"]
    reported = {
        "nats": jnp.sum(weights_BP * nats_BP),
        "weight": jnp.sum(weights_BP),
        "content_nats": jnp.sum(content_BP * nats_BP),
        "content_weight": jnp.sum(content_BP),
        "unigram_nats": -jnp.sum(weights_BP * tables["unigram"][targets_BP]),
        "content_unigram_nats": -jnp.sum(content_BP * tables["content_unigram"][targets_BP]),
        "correct": jnp.sum(weights_BP * correct_BP),
        "bytes": jnp.sum((weights_BP > 0) * tables["bytes"][targets_BP]),
    }
    if SOURCE in batch:
        of_rows = (jnp.sum(weights_BP * nats_BP, axis=1), jnp.sum(weights_BP, axis=1))
        for name, value_B in zip(_OF_SOURCES, of_rows, strict=True):
            reported[name] = by_source(value_B, batch, num_sources)
    if each:
        reported[EACH] = nats_BP
    return objective, reported


def add(a: dict[str, jax.Array], b: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Sums of two disjoint sets of predictions."""
    return jax.tree.map(jnp.add, a, b)


def summarise(
    totals: dict[str, Any], *, exact_likelihood: bool, names: Sequence[str] = ()
) -> dict[str, float]:
    """Sums on the host -> the loss fields of a metrics row: nats per prediction, shares, bits.

    `accuracy` is the share of predictions whose target has the highest logit; `bits_per_byte` is
    given only where the loss is the likelihood of the text. Of a mixture there is `loss/NAME` for
    each source of which there was something to predict.
    """
    t = {name: np.asarray(value, np.float64) for name, value in totals.items()}
    weight, content = max(t["weight"], 1e-9), max(t["content_weight"], 1e-9)
    row = {
        "loss": t["nats"] / weight,
        "content_loss": t["content_nats"] / content,
        "unigram_loss": t["unigram_nats"] / weight,
        "content_unigram_loss": t["content_unigram_nats"] / content,
        "accuracy": t["correct"] / weight,
    }
    if exact_likelihood:
        row["bits_per_byte"] = t["nats"] / np.log(2) / max(t["bytes"], 1.0)
    if "source_nats" in t:
        for name, nats, seen in zip(names, t["source_nats"], t["source_weight"], strict=True):
            if seen > 0:
                row[f"loss/{name}"] = nats / seen
    return {name: float(value) for name, value in row.items()}
