"""Intervals of 95 % of a mean over seeds, with both reasons why another try would differ.

Another seed would have trained another model, and other test examples would have judged it
otherwise. The variances of the two are added up: that of the seeds' mean, s^2 / n, and that of a
bootstrap over the examples of the mean over seeds. The interval is Student's, with the degrees of
freedom of Welch and Satterthwaite, so that three seeds alone give a wide one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A number, and where it would lie.

    Attributes:
      value: the mean over seeds, or a difference of two.
      low, high: ends of the interval of 95 %; NaN where nothing says how wide it is.
    """

    value: float
    low: float
    high: float

    @property
    def beyond_chance(self) -> bool:
        """Whether 0 is outside."""
        return self.low > 0 or self.high < 0


def of_mean(values: Sequence[float], resampled_R: np.ndarray | None = None) -> Interval:
    """Of one mean.

    Args:
      values: of each seed.
      resampled_R: their mean over resamples of the examples, [R]; None: there are none to draw.
    """
    return _interval(float(np.mean(values)), [values], resampled_R)


def of_lead(
    values: Sequence[float],
    others: Sequence[float],
    resampled_R: np.ndarray | None = None,
    of_others_R: np.ndarray | None = None,
) -> Interval:
    """Of by how much one mean is ahead of another; resamples are the same for both."""
    both_R = None if resampled_R is None or of_others_R is None else resampled_R - of_others_R
    return _interval(float(np.mean(values) - np.mean(others)), [values, others], both_R)


def _interval(
    value: float, groups: Sequence[Sequence[float]], resampled_R: np.ndarray | None
) -> Interval:
    # (variance, degrees of freedom) of each reason; many resamples count as all there are.
    parts = [(np.var(g, ddof=1) / len(g), len(g) - 1) for g in groups if len(g) > 1]
    if resampled_R is not None:
        parts.append((np.var(resampled_R), np.inf))
    if not parts:
        return Interval(value, float("nan"), float("nan"))
    variance = sum(v for v, _ in parts)
    squares = sum(v**2 / df for v, df in parts)
    df = variance**2 / squares if squares > 0 else 1e9
    half = float(stats.t.ppf(0.975, df) * np.sqrt(variance))
    return Interval(value, value - half, value + half)


@dataclass(frozen=True)
class PowerLaw:
    """loss = scale * parameters^-exponent, fitted to logarithms by least squares.

    Attributes:
      exponent: with its interval.
      log_scale: logarithm of the scale.
    """

    exponent: Interval
    log_scale: float

    def __call__(self, parameters: np.ndarray) -> np.ndarray:
        """The loss of models of so many parameters."""
        return np.exp(self.log_scale - self.exponent.value * np.log(parameters))


def power_law(parameters: Sequence[float], losses: Sequence[float]) -> PowerLaw | None:
    """Of models trained on equally many tokens; None of fewer than three, or of one size only."""
    if len(losses) < 3 or len(set(parameters)) < 2:
        return None
    found = stats.linregress(np.log(parameters), np.log(losses))
    half = float(stats.t.ppf(0.975, len(losses) - 2) * found.stderr)
    exponent = -float(found.slope)
    return PowerLaw(Interval(exponent, exponent - half, exponent + half), float(found.intercept))
