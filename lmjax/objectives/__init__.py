"""Objectives: windows of tokens and noise in, a batch out (`lmjax.batch.Objective`).

An objective is a module of this folder with `make(config, ids)`, `describe(config)`, what it says
of itself, `ARCHITECTURE`, the kind of model it trains, and `NUM_SENTINELS`, the ids that it needs
at the top of the embedding beside those of the tokenizer. Its name is the module's; nothing else
has to be told of it. One that is made of others has `parts(config)` instead of the last, and None
for `ARCHITECTURE`; one that asks for `Ids.pieces` has `needs_pieces(config)`, too.

One that takes labelled examples (`lmjax.batch.LabelledObjective`) also has `FIELDS`, the names of
theirs, `measure(predictions, references)`, and `HEAD` where the model gets another one than
that of its pre-training; one with classes has `labels(records)`, which finds them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from lmjax import fields as fields_lib
from lmjax.batch import Ids, LabelledObjective, Objective
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.objectives.description import Description
from lmjax.objectives.measures import Measure


def _found() -> dict[str, ModuleType]:
    """The objectives among the modules of this folder, by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "ARCHITECTURE")}


OBJECTIVES = _found()
LABELLED = tuple(name for name, module in OBJECTIVES.items() if hasattr(module, "FIELDS"))
PRETRAINING = tuple(name for name in OBJECTIVES if name not in LABELLED)

# What a model of this kind is usually trained on, where nobody says.
USUAL = {"decoder": "clm", "encoder": "mlm", "encoder_decoder": "span_corruption"}


def check(config: Config) -> None:
    """Raises UserError unless there is such an objective and it trains this kind of model."""
    name, architecture = config.objective.name, config.model.architecture
    if name not in OBJECTIVES:
        *others, last = map(repr, OBJECTIVES)
        raise UserError(
            f"config.objective.name={name!r} is unknown; there are {', '.join(others)} and {last}"
        )
    module = OBJECTIVES[name]
    if module.ARCHITECTURE is None:
        for part, _ in module.parts(config):
            if is_labelled(part):
                raise UserError(
                    f"config.objective.mixture has {part.objective.name!r}, which takes labelled "
                    "examples, no text; fine-tune with it by itself"
                )
            check(part)
    elif architecture != module.ARCHITECTURE:
        fitting = [other for other, m in OBJECTIVES.items() if architecture == m.ARCHITECTURE]
        raise UserError(
            f"config.objective.name={name!r} trains models of architecture "
            f"{module.ARCHITECTURE!r}, family {config.family!r} is {architecture!r}; set "
            f"objective.name to {' or '.join(fitting)}"
        )
    elif (wanted := head(name)) is None and not config.model.predicts_tokens:
        raise UserError(
            f"config.model.head={config.model.head!r} predicts no tokens, which "
            f"objective.name={name!r} does; set model.head to 'mlm' or 'lm'"
        )
    elif wanted is not None and config.model.head != wanted:
        raise UserError(
            f"config.model.head={config.model.head!r} is not the head of objective.name={name!r}, "
            f"which is {wanted!r}; leave model.head out"
        )


def is_labelled(config: Config) -> bool:
    """Whether the objective takes labelled examples."""
    return config.objective.name in LABELLED


def field_names(config: Config) -> tuple[str, ...]:
    """Names of the fields of the labelled examples that the objective takes."""
    return OBJECTIVES[config.objective.name].FIELDS


def head(name: str) -> str | None:
    """The head that a model gets for this objective; None: it keeps its own."""
    return getattr(OBJECTIVES.get(name), "HEAD", None)


def labels(config: Config, records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the classes of an objective that has some: the config's, or those of the examples.

    Raises:
      UserError: an example has no label.
    """
    module = OBJECTIVES[config.objective.name]
    if config.objective.labels or not hasattr(module, "labels"):
        return config.objective.labels
    return module.labels(records)


def measure(config: Config, predictions: Sequence, references: Sequence) -> list[Measure]:
    """How good answers to labelled examples are."""
    return OBJECTIVES[config.objective.name].measure(predictions, references)


def make(config: Config, ids: Ids, *, evaluation: bool = False) -> Objective | LabelledObjective:
    """The objective that a config names; for evaluation with the rates of that.

    Raises:
      UserError: its numbers are impossible together, or as `check`.
    """
    check(config)
    return OBJECTIVES[config.objective.name].make(_rated(config, evaluation), ids)


def describe(config: Config, *, evaluation: bool = False) -> Description:
    """What the objective that a config names says of itself; for evaluation with the rates of that.

    Raises:
      UserError: as `check`.
    """
    check(config)
    return OBJECTIVES[config.objective.name].describe(_rated(config, evaluation))


def _rated(config: Config, evaluation: bool) -> Config:
    rate = config.objective.eval_mask_rate
    if evaluation and rate is not None:
        return fields_lib.replace(config, {"objective.mask_rate": rate})
    return config


def needs_pieces(config: Config) -> bool:
    """Whether the objective goes by words or sentences."""
    module = OBJECTIVES[config.objective.name]
    if module.ARCHITECTURE is None:
        return any(needs_pieces(part) for part, _ in module.parts(config))
    asks = getattr(module, "needs_pieces", None)
    return asks is not None and asks(config)


def num_sentinels(config: Config) -> int:
    """Ids that the objective needs beside the tokenizer's."""
    module = OBJECTIVES[config.objective.name]
    if module.ARCHITECTURE is None:
        return max(num_sentinels(part) for part, _ in module.parts(config))
    return module.NUM_SENTINELS
