"""The loss over the steps of a run, as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

FILE = "loss_curve.png"


def draw(rows: Sequence[dict[str, Any]], folder: str | os.PathLike) -> bool:
    """Writes `FILE`: train and held-out loss, and what word frequencies alone would give.

    Returns:
      Whether it could be drawn: matplotlib is an extra, [card].
    """
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, no global state
    except ImportError:
        return False
    figure = Figure(figsize=(7.5, 4), dpi=150, facecolor="white", layout="constrained")
    plot(rows, figure.add_subplot(facecolor="white"))
    figure.savefig(os.path.join(folder, FILE), metadata={"Software": None})
    return True


def plot(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """Draws the curve of a run's rows into axes of matplotlib."""
    train = [row for row in rows if row["split"] == "train"]
    held_out = [row for row in rows if row["split"] == "eval"]
    if train:
        mark = "o" if len(train) == 1 else ""  # a line of one point would not be seen
        axes.plot(*_points(train), color="#8fb8de", linewidth=1.5, label="train", marker=mark)
    if held_out:
        axes.plot(*_points(held_out), color="#c03a2b", linewidth=1.5, label="held-out", marker="o")
    unigram = (held_out or train)[-1]["unigram_loss"]
    axes.axhline(unigram, color="#555555", linewidth=1, linestyle="--", label="unigram baseline")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per predicted token)")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _points(rows: Sequence[dict[str, Any]]) -> tuple[list[int], list[float]]:
    return [row["step"] for row in rows], [row["loss"] for row in rows]
