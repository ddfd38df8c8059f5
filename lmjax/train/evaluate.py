"""Held-out evaluation: the training loss's own sums over the same held-out windows each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from lmjax.batch import device_fields
from lmjax.data.pipeline import EvalBatches
from lmjax.train import loss
from lmjax.train.metrics import of_sources


def evaluate(
    params: Any,
    batches: EvalBatches,
    eval_step: Callable,
    place: Callable[[dict], dict[str, jax.Array]],
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
    names: Sequence[str] = (),
) -> dict[str, float]:
    """Metrics over all of `batches`, as `loss.summarise` gives them, and `tokens` predicted.

    Where the batches are of several sources, `tokens/NAME` as well.

    Args:
      params: model parameters.
      batches: held-out chunks.
      eval_step: from `step.make_eval_step`.
      place: host batch -> device batch.
      on_chunk: told (chunks launched, chunks in all).
      names: of the sources.
    """
    totals = loss.zeros(len(batches.sources))
    for chunk in range(len(batches)):
        totals = eval_step(params, place(device_fields(batches(chunk))), totals)
        on_chunk(chunk + 1, len(batches))
    totals, exact = jax.device_get(totals), batches.objective.exact_likelihood
    row = loss.summarise(totals, exact_likelihood=exact, names=names)
    row["tokens"] = int(totals["weight"])
    if "source_weight" in totals:
        row |= of_sources("tokens", names, map(int, totals["source_weight"]))
    return row
