"""Pictures of a matched comparison: how each learned, what sizes bring, the tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmjax.bench import matched_page
from lmjax.bench.matched import VARIANTS

_COLOURS = {"encoder": "#2f6fb3", "decoder": "#c03a2b", "encoder_decoder": "#3d8b4f"}


def draw(found: Mapping[str, Any], folder: Path, stem: str) -> list[tuple[str, str]]:
    """Writes SVG files on white, which light and dark pages show alike.

    Returns:
      (file name, what it shows) of each; none without matplotlib, an extra, [card].
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure  # without pyplot: no window, no global state
    except ImportError:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, (about, plot, width) in PICTURES.items():
        figure = Figure(figsize=(width, 3.4), facecolor="white", layout="constrained")
        if not plot(found, figure):
            continue
        file = f"{stem}_{name}.svg"
        with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            figure.savefig(folder / file, metadata={"Date": None})
        made.append((file, about))
    return made


def _axes(figure: Any, x: str, y: str) -> Any:
    axes = figure.add_subplot(facecolor="white")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _legend(axes: Any) -> None:
    axes.legend(frameon=False)


def _curves(found: Mapping[str, Any], figure: Any) -> bool:
    axes = _axes(figure, "tokens read, millions", "held-out content loss, nats")
    for variant in VARIANTS:
        runs = matched_page.runs_of(found, variant)
        for number, run in enumerate(runs):
            tokens, losses = np.array(run["curve"]).T
            label = matched_page.NAMES[variant] if number == 0 else None
            axes.plot(tokens / 1e6, losses, color=_COLOURS[variant], linewidth=1.4, label=label)
        if runs:
            unigram = runs[0]["content_unigram_loss"]
            axes.axhline(unigram, color=_COLOURS[variant], linewidth=0.8, linestyle=":")
    _legend(axes)
    return True


def _sizes(found: Mapping[str, Any], figure: Any) -> bool:
    axes = _axes(figure, "parameters beside the embedding", "held-out content loss, nats")
    axes.set_xscale("log")
    axes.set_yscale("log")
    drawn = False
    for variant in VARIANTS:
        runs = [run for run in found["pretrained"] if run["variant"] == variant]
        law = matched_page.fit(found, variant)
        if law is None:
            continue
        drawn, colour = True, _COLOURS[variant]
        sizes = [run["non_embedding"] for run in runs]
        label = f"{matched_page.NAMES[variant]}: exponent {law.exponent.value:.3f}"
        axes.plot(sizes, [run["content_loss"] for run in runs], "o", color=colour, markersize=4)
        line = np.geomspace(min(sizes), max(sizes), 20)
        axes.plot(line, law(line), color=colour, linewidth=1.2, label=label)
    if not drawn:
        return False
    axes.yaxis.set_major_formatter("{x:.1f}")
    axes.yaxis.set_minor_formatter("{x:.1f}")
    _legend(axes)
    return True


def _bars(found: Mapping[str, Any], figure: Any) -> bool:
    rows = found["rows"]
    if not rows:
        return False
    axes = _axes(figure, "", "of 100")
    for number, variant in enumerate(VARIANTS):
        for place, row in enumerate(rows):
            one = row["of"].get(variant)
            if one is None:
                continue
            missing = one["low"] is None
            error = None if missing else [[one["value"] - one["low"]], [one["high"] - one["value"]]]
            axes.bar(
                place + 0.27 * (number - 1),
                one["value"],
                0.25,
                yerr=error,
                color=_COLOURS[variant],
                ecolor="#333333",
            )
        axes.bar(0, 0, color=_COLOURS[variant], label=matched_page.NAMES[variant])
    for place, row in enumerate(rows):
        if row["plain"]:
            ends = (place - 0.42, place + 0.42)
            label = "without a network" if place == 0 else None
            axes.hlines(row["plain"]["value"], *ends, color="#333333", linestyle=":", label=label)
    names = [f"{row['task']}\n{row['measure']}".replace(", %", "") for row in rows]
    axes.set_xticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(bottom=0)
    _legend(axes)
    return True


_Plot = Callable[[Mapping[str, Any], Any], bool]

# Name -> what it shows, what draws it, inches.
PICTURES: dict[str, tuple[str, _Plot, float]] = {
    "curves": ("Held-out content loss over tokens, a line a seed; dotted: unigrams", _curves, 7),
    "tasks": ("Choices and tasks of the three, with intervals of 95 %", _bars, 9.5),
    "sizes": ("Held-out content loss over parameters, with the fitted lines", _sizes, 7),
}
