"""Curves of a page: what is drawn, as plain numbers; `static/page.js` hands them to plotly.js."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.pages.markup import Html

_DIGITS = 6  # of what is drawn; no screen shows more


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
      name: in the legend; empty: not there.
      x, y: its points; a NaN of y is a gap.
      low, high: ends of a band around it.
      dash: "solid", "dot" or "dash".
      markers, lines: whether points, and the line between them, are drawn.
      color: number of one of eight colours; None: the next.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dash: str = "solid"
    markers: bool = False
    lines: bool = True
    color: int | None = None


@dataclass(frozen=True)
class Chart:
    """Lines over a common x.

    Attributes:
      title: above it.
      lines: see `Line`.
      x, y: what the axes are, with units.
      log_x, log_y: whether axes begin logarithmic; the reader can change that.
      from_zero: whether a linear y begins there.
      marks: (x, text) of vertical lines.
      about: one sentence for those who do not see it.
    """

    title: str
    lines: Sequence[Line]
    x: str = "step"
    y: str = "loss"
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = False
    marks: Sequence[tuple[float, str]] = ()
    about: str = ""

    def html(self) -> ChartHtml:
        """The chart as a part of a section."""
        return ChartHtml(self)


class ChartHtml(Html):
    """Stands for a chart among the parts of a section; the page puts in its place and number."""

    __slots__ = ("chart",)

    def __new__(cls, chart: Chart) -> ChartHtml:
        self = super().__new__(cls, "")
        self.chart = chart
        return self


class Columns:
    """Numbers of all charts of a page; equal columns are there once."""

    def __init__(self) -> None:
        self.columns: list[list[float | None]] = []
        self._places: dict[bytes, int] = {}

    def add(self, values: Sequence[float] | None) -> int | None:
        """Returns the number of the column that has these values."""
        if values is None:
            return None
        numbers = np.asarray(values, np.float64)
        place = self._places.setdefault(numbers.tobytes(), len(self.columns))
        if place == len(self.columns):
            self.columns.append([_short(value) for value in numbers.tolist()])
        return place

    def spec(self, chart: Chart) -> dict[str, Any]:
        """The chart as JSON, columns by their numbers."""
        lines = [
            {
                "name": line.name,
                "dash": line.dash,
                "mode": "+".join(["lines"] * line.lines + ["markers"] * line.markers),
                "color": number % 8 if line.color is None else line.color % 8,
                **{name: self.add(getattr(line, name)) for name in ("x", "y", "low", "high")},
            }
            for number, line in enumerate(chart.lines)
        ]
        return {
            "title": chart.title,
            "x": chart.x,
            "y": chart.y,
            "log_x": chart.log_x,
            "log_y": chart.log_y,
            "from_zero": chart.from_zero,
            "large": any(_is_large(line.y) for line in chart.lines),
            "marks": [[x, text] for x, text in chart.marks],
            "lines": lines,
        }


def thinned(line: Line, limit: int = 2000) -> Line:
    """At most `limit` points: means of as many neighbours each, their ends as a band.

    So a spike of a single step stays in sight.
    """
    y = np.asarray(line.y, np.float64)
    if len(y) <= limit:
        return line
    starts = np.arange(0, len(y), -(-len(y) // limit))
    counts = np.add.reduceat(np.isfinite(y), starts)
    means = np.add.reduceat(np.nan_to_num(y), starts) / np.maximum(counts, 1)
    empty = counts == 0
    low, high = (
        np.where(empty, np.nan, how.reduceat(np.where(np.isfinite(y), y, fill), starts))
        for how, fill in ((np.minimum, np.inf), (np.maximum, -np.inf))
    )
    ends = np.minimum(np.append(starts[1:], len(y)), len(y)) - 1
    return Line(
        line.name,
        np.asarray(line.x)[ends],
        np.where(empty, np.nan, means),
        low,
        high,
        line.dash,
        line.markers,
        line.lines,
        line.color,
    )


def _is_large(values: Sequence[float]) -> bool:
    """Whether ticks read better as 33k than as 3.3e4."""
    return bool(np.nanmax(np.abs(np.asarray(values, np.float64)), initial=0) >= 1000)


def _short(value: float) -> float | int | None:
    """For JSON: no NaN, and no more digits than are seen."""
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 2**53:
        return int(value)
    return float(f"{value:.{_DIGITS}g}")
