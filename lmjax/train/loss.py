"""One loss for every objective: weighted cross-entropy, as sums.

    loss = sum(weights * -log p(target)) / sum(weights)

Both sums run over devices *and* micro-batches before the one division, since a mean of means weighs
a row with few predictions like a row with many. Beside the loss go the sums that judge it: the same
over `content_weights`, what a unigram model would have paid, right guesses, and UTF-8 bytes.

z-loss (Chowdhery et al. 2022, PaLM, section 5) adds z * log(Z)^2 per prediction, Z the softmax's
normaliser; it is trained on, never reported as loss.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.nn.heads import predicted

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

Tables = dict[str, jax.Array]


def zeros() -> dict[str, jax.Array]:
    """The sums of nothing."""
    return {name: jnp.zeros((), jnp.float32) for name in _NAMES}


def sums(
    model: nn.Module,
    params: Any,
    batch: dict[str, jax.Array],
    tables: Tables,
    *,
    z_loss: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The sum to differentiate, and the sums to report.

    Args:
      model: has the methods `trunk` and `head`.
      params: its parameters.
      batch: device fields of a batch (lmjax.batch), B rows and P predictions.
      tables: per id, float32 [V]: `unigram` and `content_unigram` log-probabilities, `bytes`.
      z_loss: weight of log(Z)^2.
      dropout_key: None for evaluation.

    Returns:
      A float32 scalar, and a dict of float32 scalars: nats and counts, not means.
    """
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    variables = {"params": params}
    hidden_BTD, _ = model.apply(
        variables, batch, deterministic=dropout_key is None, rngs=rngs, method="trunk"
    )
    logits_BPV = model.apply(variables, predicted(hidden_BTD, batch), method="head")
    targets_BP, weights_BP = batch["targets"], batch["weights"]
    log_z_BP = jax.nn.logsumexp(logits_BPV, axis=-1)
    target_BP = jnp.take_along_axis(logits_BPV, targets_BP[..., None], axis=-1)[..., 0]
    nats_BP = log_z_BP - target_BP
    content_BP = batch["content_weights"]
    reported = {
        "nats": jnp.sum(weights_BP * nats_BP),
        "weight": jnp.sum(weights_BP),
        "content_nats": jnp.sum(content_BP * nats_BP),
        "content_weight": jnp.sum(content_BP),
        "unigram_nats": -jnp.sum(weights_BP * tables["unigram"][targets_BP]),
        "content_unigram_nats": -jnp.sum(content_BP * tables["content_unigram"][targets_BP]),
        "correct": jnp.sum(weights_BP * (target_BP >= jnp.max(logits_BPV, axis=-1))),
        "bytes": jnp.sum((weights_BP > 0) * tables["bytes"][targets_BP]),
    }
    objective = reported["nats"]
    if z_loss:
        objective += z_loss * jnp.sum(weights_BP * jnp.square(log_z_BP))
    return objective, reported


def add(a: dict[str, jax.Array], b: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Sums of two disjoint sets of predictions."""
    return jax.tree.map(jnp.add, a, b)


def summarise(totals: dict[str, Any], *, exact_likelihood: bool) -> dict[str, float]:
    """Sums on the host -> the loss fields of a metrics row: nats per prediction, shares, bits.

    `accuracy` is the share of predictions whose target has the highest logit; `bits_per_byte` is
    given only where the loss is the likelihood of the text.
    """
    t = {name: np.float64(value) for name, value in totals.items()}
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
    return {name: float(value) for name, value in row.items()}
