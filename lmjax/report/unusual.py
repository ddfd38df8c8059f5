"""Steps that stand out: where to look first when a run has learned badly."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_NEAR = 7  # rows on each side that say what is usual
NEIGHBOURS = 25  # rows on each side that say how much rows differ
_LEAST_SHARE = 0.003  # of the usual value; a deviation less than that is of no consequence


@dataclass(frozen=True)
class Unusual:
    """A step far above its neighbourhood.

    Attributes:
      step: its number.
      what: "loss" or "grad_norm".
      value, usual: there, and the higher of the medians before and behind it.
      score: how many standard deviations, by the median deviation, lie between them.
    """

    step: int
    what: str
    value: float
    usual: float
    score: float


def find(columns: Mapping[str, np.ndarray], limit: int = 10) -> list[Unusual]:
    """The most unusual steps, worst first.

    Args:
      columns: of the training rows, each [N]; `max_loss` with `max_loss_step` say which step was
        the worst of a row's; rows without them stand for their last step.
      limit: at most so many.
    """
    found: dict[int, Unusual] = {}
    for what in ("loss", "grad_norm"):
        for each in _of(columns, what):
            before = found.get(each.step)
            if before is None or each.score > before.score:
                found[each.step] = each
    return sorted(found.values(), key=lambda each: -each.score)[:limit]


def least_score(num_rows: int) -> float:
    """Deviations that noise alone hardly comes to in so many rows: 4.6 in 40, 7 in 100,000."""
    return 3.5 + 0.7 * math.log10(max(num_rows, 10))


def _of(columns: Mapping[str, np.ndarray], what: str) -> Sequence[Unusual]:
    values = columns.get(f"max_{what}", columns.get(what))
    if values is None or len(values) < 3 * _NEAR:
        return []
    steps = columns.get(f"max_{what}_step", columns["step"])
    usual, spread = _around(values)
    with np.errstate(invalid="ignore"):
        score = (values - usual) / np.maximum(spread, _LEAST_SHARE * np.abs(usual))
    return [
        Unusual(int(steps[i]), what, float(values[i]), float(usual[i]), float(score[i]))
        for i in np.flatnonzero(score > least_score(len(values)))
        if np.isfinite(steps[i])
    ]


def _around(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is usual at each value, and the deviation from it in its units.

    Usual is the higher of the medians of a few rows before and behind, so that neither the fall at
    the beginning nor a rise stands out. The deviation is that of differences between neighbours,
    which know no trend. The first few have nothing before them and are not judged.
    """
    padded = np.pad(values, _NEAR, constant_values=np.nan)
    near = np.lib.stride_tricks.sliding_window_view(padded, _NEAR)
    steps = np.pad(np.diff(values, prepend=np.nan), NEIGHBOURS, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(steps, 2 * NEIGHBOURS + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the ends, where one side is empty
        before, behind = near[: len(values)], near[_NEAR + 1 :]
        usual = np.fmax(np.nanmedian(before, axis=1), np.nanmedian(behind, axis=1))
        spread = 1.4826 / np.sqrt(2) * np.nanmedian(np.abs(around), axis=1)
    usual[:_NEAR] = np.nan
    return usual, spread
