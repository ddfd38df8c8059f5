"""Steps that stand out: where to look first when a run has learned badly."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_NEIGHBOURS = 15  # rows on each side that a row is compared with
_LEAST_SCORE = 6.0  # of noise alone, one row in many millions
_LEAST_SHARE = 0.02  # of the usual value; less is of no consequence


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


def _of(columns: Mapping[str, np.ndarray], what: str) -> Sequence[Unusual]:
    values = columns.get(f"max_{what}", columns.get(what))
    if values is None or len(values) < 2 * _NEIGHBOURS:
        return []
    steps = columns.get(f"max_{what}_step", columns["step"])
    usual, spread = _around(values)
    with np.errstate(invalid="ignore"):
        score = (values - usual) / np.maximum(spread, _LEAST_SHARE / _LEAST_SCORE * np.abs(usual))
    return [
        Unusual(int(steps[i]), what, float(values[i]), float(usual[i]), float(score[i]))
        for i in np.flatnonzero(score > _LEAST_SCORE)
        if np.isfinite(steps[i])
    ]


def _around(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is usual at each value, and the deviation from it in its units.

    That is the higher of the medians before and behind it, so that neither the fall at the
    beginning nor a rise stands out. The first few have nothing before them and are not judged.
    """
    padded = np.pad(values, _NEIGHBOURS, constant_values=np.nan)
    views = np.lib.stride_tricks.sliding_window_view(padded, _NEIGHBOURS)
    before, behind = views[: len(values)], views[_NEIGHBOURS + 1 :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the ends, where one side is empty
        middles = [np.nanmedian(side, axis=1, keepdims=True) for side in (before, behind)]
        usual = np.fmax(*middles)[:, 0]
        rest = np.concatenate([before - middles[0], behind - middles[1]], axis=1)
        spread = 1.4826 * np.nanmedian(np.abs(rest), axis=1)
    usual[: _NEIGHBOURS // 3] = np.nan
    return usual, spread
