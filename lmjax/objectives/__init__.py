"""Objectives: windows of tokens and noise in, a batch out (`lmjax.batch.Objective`).

An objective is a module with `make(config, ids)`, `NUM_SENTINELS`, the ids that it needs at the top
of the embedding beside those of the tokenizer, and `ARCHITECTURE`, the kind of model it trains. One
that asks for `Ids.pieces` has `needs_pieces(config)`, too.
"""

from __future__ import annotations

from lmjax import fields
from lmjax.batch import Ids, Objective
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.objectives import clm, mlm, span_corruption

OBJECTIVES = {"clm": clm, "mlm": mlm, "span_corruption": span_corruption}


def make(config: Config, ids: Ids, *, evaluation: bool = False) -> Objective:
    """The objective that a config names; for evaluation with the rates of that.

    Raises:
      UserError: its numbers are impossible together, or it trains another kind of model.
    """
    module, architecture = OBJECTIVES[config.objective.name], config.model.architecture
    if architecture != module.ARCHITECTURE:
        fitting = [name for name, m in OBJECTIVES.items() if architecture == m.ARCHITECTURE]
        raise UserError(
            f"config.objective.name={config.objective.name!r} trains models of architecture "
            f"{module.ARCHITECTURE!r}, family {config.family!r} is {architecture!r}; "
            f"set objective.name to {' or '.join(fitting)}"
        )
    rate = config.objective.eval_mask_rate
    if evaluation and rate is not None:
        config = fields.replace(config, {"objective.mask_rate": rate})
    return module.make(config, ids)


def needs_pieces(config: Config) -> bool:
    """Whether the objective goes by words or sentences."""
    asks = getattr(OBJECTIVES[config.objective.name], "needs_pieces", None)
    return asks is not None and asks(config)


def first_for(architecture: str) -> str:
    """Name of the usual objective of a kind of model, the first in `OBJECTIVES`."""
    return next(name for name, m in OBJECTIVES.items() if architecture == m.ARCHITECTURE)


def num_sentinels(config: Config) -> int:
    """Ids that the objective needs beside the tokenizer's."""
    return OBJECTIVES[config.objective.name].NUM_SENTINELS
