"""Held-out evaluation: the training loss's own sums over the same held-out windows each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from lmjax.batch import device_fields
from lmjax.data.pipeline import EvalBatches
from lmjax.train import loss


def evaluate(
    params: Any,
    batches: EvalBatches,
    eval_step: Callable,
    place: Callable[[dict], dict[str, jax.Array]],
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Metrics over all of `batches`, as `loss.summarise` gives them, and `tokens` predicted.

    Args:
      params: model parameters.
      batches: held-out chunks.
      eval_step: from `step.make_eval_step`.
      place: host batch -> device batch.
      on_chunk: told (chunks launched, chunks in all).
    """
    totals = loss.zeros()
    for chunk in range(len(batches)):
        totals = eval_step(params, place(device_fields(batches(chunk))), totals)
        on_chunk(chunk + 1, len(batches))
    row = loss.summarise(
        jax.device_get(totals), exact_likelihood=batches.objective.exact_likelihood
    )
    return row | {"tokens": int(totals["weight"])}
