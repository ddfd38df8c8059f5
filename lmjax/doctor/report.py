"""Sections of a report, how they look in a terminal, and as a block of text for a bug report."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console as RichConsole
from rich.table import Column, Table

from lmjax import foreign, redact
from lmjax.errors import UserError

BEGIN = "----- begin of the report of tools/doctor.py -----"
END = "----- end of the report of tools/doctor.py -----"

_MARKS = {"yes": "green", "no": "red"}


@dataclass
class Section:
    """A table of what was found, and the lines `cause; fix` of what is wrong with it.

    `pasted`: whether a bug report needs it.
    """

    title: str
    headers: tuple[str, ...] = ("", "")
    rows: list[tuple[str, ...]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    pasted: bool = True

    def add(self, *cells: str) -> None:
        """One more row."""
        self.rows.append(cells)


def checked(title: str, check: Callable[..., Section], *args: object, **kwargs: object) -> Section:
    """The section of a check; what it raises becomes a problem."""
    try:
        return check(*args, **kwargs)
    except UserError as error:
        return Section(title, problems=[" ".join(str(error).split())])
    except Exception as error:
        said = foreign.explain(error) or (
            f"{title}: {type(error).__name__}: {foreign.first_line(error)}; if this is no fault of "
            "the machine, report it with the block below"
        )
        return Section(title, problems=[" ".join(said.split())])


def show(sections: Sequence[Section], console: RichConsole) -> None:
    """Prints the sections, the problems with their fixes, and the block to paste."""
    for section in sections:
        if section.rows:
            console.print(_table(section, console.width))
    problems = [problem for section in sections for problem in section.problems]
    if problems:
        console.print(f"[bold red]{len(problems)} problem{'s' * (len(problems) > 1)}[/]")
    else:
        console.print("[bold green]nothing is wrong[/]")
    for number, problem in enumerate(problems, 1):
        cause, _, fix = problem.partition("; ")
        line = {"markup": False, "highlight": False, "soft_wrap": True}
        console.print(f"{number}. {cause}", style="red", **line)
        console.print(f"   fix: {fix or 'mend that, then run the same command again'}", **line)
    console.print("\nFor a bug report, copy what stands between these lines:\n", highlight=False)
    console.print(block(sections), markup=False, highlight=False, soft_wrap=True)


def _table(section: Section, console_width: int) -> Table:
    columns = [
        Column(header, overflow="fold", style="bold" if index == 0 else "")
        for index, header in enumerate(section.headers)
    ]
    table = Table(
        *columns,
        title=section.title,
        title_justify="left",
        title_style="bold cyan",
        box=box.SIMPLE_HEAD,
        show_header=any(section.headers),
        min_width=min(len(section.title) + 2, console_width),
    )
    for row in section.rows:
        cells = [f"[{_MARKS[c]}]{c}[/]" if c in _MARKS else c.replace("[", r"\[") for c in row]
        table.add_row(*cells)
    return table


def block(sections: Sequence[Section]) -> str:
    """The report as plain text without names of home folders, users or secrets."""
    lines = [BEGIN]
    for section in sections:
        if section.pasted or section.problems:
            lines += [section.title, *("  " + " | ".join(filter(None, r)) for r in section.rows)]
        lines += [f"  PROBLEM: {problem}" for problem in section.problems]
    return scrubbed("\n".join([*lines, END]))


def scrubbed(text: str) -> str:
    """Text in which home folders are ~, the user is USER and secrets are ***."""
    text = redact.redacted(text).replace(os.path.expanduser("~"), "~")
    text = re.sub(r"/(?:home|Users)/[^/\s,;:'\"]+", "~", text)
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may know no name for its user
        user = "root"
    if user != "root":
        text = re.sub(rf"\b{re.escape(user)}\b", "USER", text)
    return text
