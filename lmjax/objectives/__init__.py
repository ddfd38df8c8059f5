"""Objectives: windows of tokens and noise in, a batch out (`lmjax.batch.Objective`)."""

from __future__ import annotations

from lmjax.batch import Objective
from lmjax.config import Config
from lmjax.objectives import clm

OBJECTIVES = {"clm": clm.make}


def make(config: Config) -> Objective:
    """The objective that a config names."""
    return OBJECTIVES[config.objective.name](config)
