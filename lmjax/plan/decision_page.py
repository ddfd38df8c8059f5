"""A recommendation as a person reads it: on the console, and as a page with its pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from lmjax import paths
from lmjax.pages import Page, Section, charts, markup
from lmjax.plan import decision
from lmjax.plan import decision_words as words
from lmjax.plan.decision import Question
from lmjax.train.console import count

_MEASURED, _FIT, _CHOICE = 7, 0, 1  # colours
_TERA = 1e12


def answer(
    question: Question, output: str | None, console: Console, tell: Callable[[str], None]
) -> None:
    """Answers a question on the console and, with an output, as a page and JSON beside it.

    Args:
      question: to answer.
      output: FILE.html, or None.
      console: for the answer.
      tell: is told what goes on.

    Raises:
      UserError: as `decision.make`; or a page is wanted, and plotly is not installed.
    """
    if output:  # said before the ladder, and not after
        Page("", "", [Section("", charts.Chart("", []).html())]).render()
    found = decision.make(question, tell)
    show(found, console)
    if output:
        figures = output.removesuffix(".html") + ".json"
        paths.write_bytes(output, render(found))
        paths.write_bytes(figures, (json.dumps(found, indent=1) + "\n").encode())
        tell(f"the page is {output}, its figures are {figures}")


def show(found: dict[str, Any], console: Console) -> None:
    """Prints what was found.

    Args:
      found: from `decision.make`.
      console: where to.
    """
    for name in found["variants"]:
        table = Table(title=words.title(found), show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for row in words.rows(found, name):
            table.add_row(*row)
        console.print(table)
        for command in words.commands(found, name):
            console.print(command, highlight=False, markup=False, soft_wrap=True)
    for line in words.caveats(found):
        console.print(f"- {line}", highlight=False, markup=False)


def render(found: dict[str, Any]) -> bytes:
    """The page, one HTML file.

    Raises:
      UserError: plotly is not installed.
    """
    sections = []
    for name, one in found["variants"].items():
        which = f"{name}: " * (len(found["variants"]) > 1)
        sections += [
            Section(f"{which}Recommendation".capitalize(), *_answer(found, name)),
            Section(f"{which}Loss against size and compute".capitalize(), *_pictures(found, one)),
            Section(f"{which}Runs of the ladder".capitalize(), _runs(one)),
        ]
    caveats = markup.tag("ul", *[markup.tag("li", line) for line in words.caveats(found)])
    sections.append(Section("What this does not say", caveats))
    subtitle = words.headline(found["variant"], found["variants"][found["variant"]])
    return Page(words.title(found), subtitle[0].upper() + subtitle[1:], sections).render()


def _answer(found: dict[str, Any], name: str) -> list[markup.Html]:
    commands = "\n".join(words.commands(found, name))
    return [markup.facts(words.rows(found, name)), markup.tag("pre", commands)]


def _pictures(found: dict[str, Any], one: dict[str, Any]) -> list[markup.Html]:
    return [_by_size(one).html(), _by_compute(found, one).html()]


def _by_size(one: dict[str, Any]) -> charts.Chart:
    runs, curve = one["runs"], one["curves"]["size"]
    lengths = sorted({run["tokens"] for run in runs})
    lines = [
        charts.Line(
            f"fit, {count(lengths[-1])} tokens",
            curve["x"],
            curve["loss"],
            curve["low"],
            curve["high"],
            color=_FIT,
        )
    ]
    for color, tokens in zip((2, 3, 5, 7), lengths, strict=False):
        of = [run for run in runs if run["tokens"] == tokens]
        color = _FIT if tokens == lengths[-1] else color
        lines.append(
            charts.Line(
                f"runs, {count(tokens)} tokens",
                [run["params"] for run in of],
                [run["loss"] for run in of],
                markers=True,
                lines=False,
                color=color,
            )
        )
    largest = max(run["params"] for run in runs)
    return charts.Chart(
        "Held-out loss against size",
        lines,
        x="parameters in the blocks",
        y="content loss, nats",
        log_x=True,
        marks=[(largest, "measured up to here")],
        about="The runs of the ladder and the fitted loss of larger models on as many tokens, with "
        "a band of 90 %.",
    )


def _by_compute(found: dict[str, Any], one: dict[str, Any]) -> charts.Chart:
    runs, curve, choice = one["runs"], one["curves"]["compute"], one["choice"]
    line = charts.Line(
        "best size for the compute, with text enough",
        [flops / _TERA for flops in curve["x"]],
        curve["loss"],
        curve["low"],
        curve["high"],
        color=_FIT,
    )
    measured = charts.Line(
        "runs of the ladder",
        [run["flops"] / _TERA for run in runs],
        [run["loss"] for run in runs],
        markers=True,
        lines=False,
        color=_MEASURED,
    )
    best = charts.Line(
        "best with this text",
        [choice["run"]["flops"] / _TERA],
        [choice["run"]["loss"][1]],
        markers=True,
        lines=False,
        color=_CHOICE,
    )
    return charts.Chart(
        "Held-out loss against compute",
        [line, measured, best],
        x="TFLOPs of training",
        y="content loss, nats",
        log_x=True,
        marks=[
            (max(run["flops"] for run in runs) / _TERA, "measured up to here"),
            (found["budget"]["flops"] / _TERA, "the budget"),
        ],
        about="What the best size would reach at each compute if there were text enough, with a "
        "band of 90 %, the runs of the ladder, and the best run with the text that there is.",
    )


def _runs(one: dict[str, Any]) -> markup.Html:
    header = ["model", "parameters", "tokens", "steps", "held-out loss", "unigram", "tokens/s"]
    cells = [
        [
            run["shape"].replace(" ", "\N{NO-BREAK SPACE}"),
            f"{run['params']:,}",
            f"{run['tokens']:,}",
            f"{run['steps']:,}",
            f"{run['loss']:.4f}",
            f"{run['unigram']:.3f}",
            f"{run['tokens_per_second']:,.0f}",
        ]
        for run in one["runs"]
    ]
    return markup.table(header, cells, numeric=range(1, len(header)))
