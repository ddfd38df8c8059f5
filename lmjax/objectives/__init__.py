"""Objectives: windows of tokens and noise in, a batch out (`lmjax.batch.Objective`).

An objective is a module with `make(config, ids)` and `NUM_SENTINELS`, the ids that it needs at the
top of the embedding beside those of the tokenizer.
"""

from __future__ import annotations

from lmjax.batch import Ids, Objective
from lmjax.config import Config
from lmjax.objectives import clm, mlm, span_corruption

OBJECTIVES = {"clm": clm, "mlm": mlm, "span_corruption": span_corruption}


def make(config: Config, ids: Ids) -> Objective:
    """The objective that a config names.

    Raises:
      UserError: its numbers are impossible together.
    """
    return OBJECTIVES[config.objective.name].make(config, ids)


def num_sentinels(config: Config) -> int:
    """Ids that the objective needs beside the tokenizer's."""
    return OBJECTIVES[config.objective.name].NUM_SENTINELS
