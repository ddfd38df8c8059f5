"""Free text as part of a Markdown document: shown as it is, whatever it holds."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_MAX_CHARS = 200


def plain(text: object) -> str:
    """One line of printable characters, cut where it is very long."""
    words = " ".join(str(text).split())
    line = "".join(c for c in words if c.isprintable())
    return line if len(line) <= _MAX_CHARS else f"{line[: _MAX_CHARS - 3]}..."


def shown(text: object) -> str:
    """The same for Markdown: no sign of it means anything."""
    return re.sub(r"([\\`*_\[\]{}#|~$@])", r"\\\1", html.escape(plain(text), quote=False))


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are Markdown already."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def code(language: str, text: str) -> str:
    """A block of code."""
    return f"```{language}\n{text.rstrip()}\n```"
