"""Ladders and their held-out rungs as one small SVG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.pages.markup import Html, tag
from lmjax.plan import scaling
from lmjax.plan.scaling import Fit, Points
from lmjax.train.console import count

_PANEL, _HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP = 236, 236, 34, 30, 44, 10
_STYLE = """
text { font: 11px system-ui, sans-serif; fill: #57606a; }
.title { font-weight: 600; fill: #1b1f24; }
.paper { fill: #ffffff; } .axis { stroke: #d5dae0; fill: none; }
.fit { stroke: #0072b2; stroke-width: 1.6; fill: none; } .band { fill: #0072b2; opacity: 0.18; }
.long { fill: #0072b2; } .short { fill: none; stroke: #0072b2; stroke-width: 1.3; }
.held { fill: #c2500a; } .reach { stroke: #c2500a; stroke-width: 1.6; }
@media (prefers-color-scheme: dark) {
  text { fill: #a3acb7; } .title { fill: #e6e9ed; }
  .paper { fill: #14171b; } .axis { stroke: #39414b; }
  .fit, .short { stroke: #56b4e9; } .band, .long { fill: #56b4e9; }
  .held { fill: #ff9d5c; } .reach { stroke: #ff9d5c; }
}
"""


@dataclass(frozen=True)
class Panel:
    """A ladder, what was foretold of a larger rung, and what that came to.

    Attributes:
      title: above it.
      points: that were fitted.
      fit: of them.
      params, loss: of the larger rung, which has read as much as the longest runs.
    """

    title: str
    points: Points
    fit: Fit
    params: float
    loss: float


def svg(panels: Sequence[Panel]) -> bytes:
    """The picture: loss against parameters, one panel beside the other."""
    width = len(panels) * (_PANEL + _GAP) - _GAP
    drawn = [
        tag("g", *_panel(panel), transform=f"translate({i * (_PANEL + _GAP)} 0)")
        for i, panel in enumerate(panels)
    ]
    names = ", ".join(panel.title for panel in panels)
    about = tag("title", f"Held-out loss against parameters: {names}")
    paper = tag("rect", class_="paper", width="100%", height="100%", rx="6")
    box = f"0 0 {width} {_HEIGHT}"
    whole = tag(
        "svg",
        about,
        tag("style", Html(_STYLE)),
        paper,
        *drawn,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=box,
        role="img",
    )
    return f"{whole}\n".encode()


def _panel(panel: Panel) -> list[Html]:
    points, longest = panel.points, panel.points.tokens.max()
    params = np.geomspace(points.params.min() / 1.15, 1.15 * panel.params, 40)
    low, middle, high = panel.fit.interval(params, np.full(40, longest))
    reach = panel.fit.interval(np.array(panel.params), np.array(longest), of_run=True)
    losses = [*points.loss, panel.loss, *low, *high]
    x, y = _scale(np.log(params), _LEFT, _PANEL - 8), _scale(losses, _HEIGHT - _BOTTOM, _TOP)
    at = lambda n, loss: (f"{x(np.log(n)):.1f}", f"{y(loss):.1f}")
    line = " ".join(",".join(at(*pair)) for pair in zip(params, middle, strict=True))
    edge = [*zip(params, low, strict=True), *zip(params[::-1], high[::-1], strict=True)]
    band = " ".join(",".join(at(*pair)) for pair in edge)
    (cx, cy), (_, top), (_, bottom) = (at(panel.params, each) for each in (panel.loss, *reach[::2]))
    dots = []
    for n, tokens, loss in zip(points.params, points.tokens, points.loss, strict=True):
        px, py = at(n, loss)
        kind = "long" if tokens == longest else "short"
        dots.append(tag("circle", cx=px, cy=py, r="3", class_=kind))
    return [
        *_axes(panel, x, y, losses),
        tag("polygon", points=band, class_="band"),
        tag("polyline", points=line, class_="fit"),
        *dots,
        tag("line", x1=cx, x2=cx, y1=top, y2=bottom, class_="reach"),
        tag("circle", cx=cx, cy=cy, r="4", class_="held"),
    ]


def _scale(values: Sequence[float], start: float, end: float):
    low, high = np.min(values), np.max(values)
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _axes(panel: Panel, x, y, losses: Sequence[float]) -> list[Html]:
    step = 0.5 if np.ptp(losses) > 1.2 else 0.2 if np.ptp(losses) > 0.5 else 0.1
    ticks = np.arange(np.ceil(min(losses) / step), np.floor(max(losses) / step) + 1) * step
    parts = [tag("text", panel.title, x=str(_LEFT), y="18", class_="title")]
    for tick in ticks:
        here = f"{y(tick):.1f}"
        ends = {"x1": str(_LEFT), "x2": str(_PANEL - 4)}
        parts.append(tag("line", y1=here, y2=here, class_="axis", **ends))
        where = {"x": str(_LEFT - 5), "y": f"{y(tick) + 4:.1f}"}
        parts.append(tag("text", f"{tick:.1f}", text_anchor="end", **where))
    below = str(_HEIGHT - _BOTTOM + 18)
    for params in (*sorted(set(panel.points.params)), panel.params):
        here = f"{x(np.log(params)):.1f}"
        parts.append(tag("text", count(params), x=here, y=below, text_anchor="middle"))
    middle = str((_PANEL + _LEFT) // 2)
    tokens = f"parameters, on {count(panel.points.tokens.max())} tokens"
    return [*parts, tag("text", tokens, x=middle, y=str(_HEIGHT - 8), text_anchor="middle")]


def of_record(record: Sequence[dict[str, Any]]) -> list[Panel]:
    """Panels of ladders as `docs/images/ladders.json` has them.

    Args:
      record: of each ladder `variant`, `runs` and `held_out`, these with `params`, `tokens` and
        `loss`.
    """
    panels = []
    for ladder in record:
        columns = ("params", "tokens", "loss")
        points = Points(*(np.array([run[c] for run in ladder["runs"]], float) for c in columns))
        rung = ladder["held_out"]
        about = (ladder["variant"], points, scaling.fit(points), rung["params"], rung["loss"])
        panels.append(Panel(*about))
    return panels
