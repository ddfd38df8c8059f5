"""The curves of a report: what is drawn of the columns of one run or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from lmjax.pages import charts
from lmjax.pages.charts import Chart, Line
from lmjax.pages.markup import Html
from lmjax.report.gather import Run

_NATS = "nats per prediction"
_TOLD = {  # columns that are drawn, or said, elsewhere
    "step",
    "loss",
    "content_loss",
    "unigram_loss",
    "content_unigram_loss",
    "accuracy",
    "bits_per_byte",
    "grad_norm",
    "learning_rate",
    "tokens",
    "tokens_per_second",
    "mfu",
    "skipped_updates",
    "seconds",
}


def learning(runs: Sequence[Run]) -> list[Html]:
    """Losses, shares of right predictions, and what fine-tuning is judged by."""
    found = [
        _losses(runs, "loss", "unigram_loss", "Loss"),
        _losses(runs, "content_loss", "content_unigram_loss", "Content loss"),
        _by_tokens(runs),
        _one(runs, "bits_per_byte", "Bits per byte", "bits per byte of text"),
        _one(runs, "accuracy", "Right predictions", "share of predictions"),
        *(_one(runs, name, name.replace("_", " "), name) for name in _measures(runs)),
    ]
    return _there(found)


def steering(runs: Sequence[Run]) -> list[Html]:
    """Gradient norm, learning rate, the worst step of each row, and updates not made."""
    rate = [_line(run, run.train, "learning_rate", n) for n, run in enumerate(runs)]
    found = [
        _norms(runs),
        _chart("Learning rate", rate, y="learning rate", about="The rate of each step."),
        _worst(runs),
        _skips(runs),
    ]
    return _there(found)


def speed(runs: Sequence[Run]) -> list[Html]:
    """Tokens per second and model FLOPs utilisation, restarts marked."""
    marks = _restarts(runs)
    rate = [_line(run, run.train, "tokens_per_second", n) for n, run in enumerate(runs)]
    mfu = [_line(run, run.train, "mfu", n) for n, run in enumerate(runs)]
    about = "Restarts are marked." if marks else ""
    return _there(
        [
            _chart(
                "Throughput", rate, y="tokens per second", from_zero=True, marks=marks, about=about
            ),
            _chart(
                "MFU", mfu, y="share of the chips' peak", from_zero=True, marks=marks, about=about
            ),
        ]
    )


def mixture(run: Run) -> list[Html]:
    """Loss, tokens and epochs of the sources of a mixture."""
    found = []
    for field, title, y in (
        ("loss", "Loss by source", _NATS),
        ("tokens", "Tokens by source", "tokens seen"),
        ("epochs", "Passes by source", "epochs"),
    ):
        lines = []
        for number, name in enumerate(run.facts.config.data.source_names):
            column = f"{field}/{name}"
            lines.append(_line(run, run.train, column, number, name))
            if field == "loss":
                lines.append(
                    _line(run, run.held_out, column, number, f"{name}, held out", held_out=True)
                )
        found.append(_chart(f"{title}: {run.label}", lines, y=y))
    return _there(found)


def _losses(runs: Sequence[Run], name: str, unigram: str, title: str) -> Html | None:
    lines = _both(runs, name)
    for number, run in enumerate(runs):
        if number == 0 or not _same_baseline(runs, unigram):
            baseline = _line(run, run.held_out or run.train, unigram, number, "word frequencies")
            if baseline is not None:
                lines.append(_dotted(baseline, _called(runs, run, "word frequencies alone")))
    about = "Training and held-out text, and what word frequencies alone would give."
    return _chart(title, lines, y=_NATS, about=about)


def _by_tokens(runs: Sequence[Run]) -> Html | None:
    """The same over tokens, where steps of the runs are not of equal size."""
    if len({run.facts.config.train.global_batch_size for run in runs}) == 1:
        return None
    lines = [
        _line(run, run.train, "content_loss", number, run.label, x="tokens")
        for number, run in enumerate(runs)
    ]
    about = "The same runs, side by side where they have seen as much."
    return _chart("Content loss over tokens", lines, x="tokens seen", y=_NATS, about=about)


def _norms(runs: Sequence[Run]) -> Html | None:
    lines = []
    for number, run in enumerate(runs):
        lines.append(_line(run, run.train, "grad_norm", number))
        peaks = _line(run, run.train, "max_grad_norm", number)
        if peaks is not None:
            lines.append(_dotted(peaks, _called(runs, run, "largest since the row before")))
    about = "Before clipping; of the rows' last steps, and the largest of all steps."
    return _chart("Gradient norm", lines, y="L2 norm", log_y=True, about=about)


def _worst(runs: Sequence[Run]) -> Html | None:
    lines = []
    for number, run in enumerate(runs):
        lines.append(_line(run, run.train, "max_loss", number, _called(runs, run, "worst step")))
    about = "The largest loss of a single step since the row before."
    return _chart("Worst step of each row", lines, y=_NATS, about=about)


def _skips(runs: Sequence[Run]) -> Html | None:
    if not any(np.nanmax(run.train.get("skipped_updates", [0]), initial=0) for run in runs):
        return None
    lines = [_line(run, run.train, "skipped_updates", n) for n, run in enumerate(runs)]
    return _chart("Updates not made, in all", lines, y="updates")


def _one(runs: Sequence[Run], name: str, title: str, y: str) -> Html | None:
    return _chart(title, _both(runs, name), y=y)


def _both(runs: Sequence[Run], name: str) -> list[Line | None]:
    """A column of the training rows and of the held-out ones; of one run in two colours."""
    lines = []
    for number, run in enumerate(runs):
        lines.append(_line(run, run.train, name, number, _called(runs, run, "training")))
        color = number if len(runs) > 1 else 1
        called = _called(runs, run, "held out")
        lines.append(_line(run, run.held_out, name, color, called, held_out=True))
    return lines


def _called(runs: Sequence[Run], run: Run, what: str) -> str:
    return what if len(runs) == 1 else f"{run.label}, {what}"


def _measures(runs: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run.held_out)
    ends = ("_low", "_high", "_step")
    return [x for x in names if x not in _TOLD and "/" not in x and not x.endswith(ends)]


def _line(
    run: Run,
    columns: dict[str, np.ndarray],
    name: str,
    number: int,
    label: str | None = None,
    *,
    x: str = "step",
    held_out: bool = False,
) -> Line | None:
    """The column of a run, thinned; None where nothing is in it."""
    if name not in columns or x not in columns:
        return None
    there = np.isfinite(columns[name]) & np.isfinite(columns[x])
    if not there.any():
        return None
    few = int(there.sum()) == 1
    line = Line(
        run.label if label is None else label,
        columns[x][there],
        columns[name][there],
        dash="dash" if held_out else "solid",
        markers=held_out or few,
        color=number,
    )
    return charts.thinned(line)


def _dotted(line: Line, name: str) -> Line:
    return Line(name, line.x, line.y, dash="dot", color=line.color)


def _same_baseline(runs: Sequence[Run], unigram: str) -> bool:
    ends = [run.held_out[unigram][-1] for run in runs if unigram in run.held_out]
    return len(ends) == len(runs) and len(set(ends)) == 1


def _chart(title: str, lines: Iterable[Line | None], **settings) -> Html | None:
    drawn = [line for line in lines if line is not None]
    return Chart(title, drawn, **settings).html() if drawn else None


def _there(found: Iterable[Html | None]) -> list[Html]:
    return [one for one in found if one is not None]


def _restarts(runs: Sequence[Run]) -> list[tuple[float, str]]:
    which: Callable[[Run], str] = lambda run: f" {run.label}" if len(runs) > 1 else ""
    return [
        (start.step, f"restart{which(run)}") for run in runs for start in run.timeline.starts[1:]
    ]
