"""A page as one file: its text, its styles, its numbers and, where there are curves, plotly.js.

A content security policy forbids the page every request. Numbers and library are compressed (gzip
in base64), which every browser since 2023 undoes by itself (DecompressionStream).
"""

from __future__ import annotations

import base64
import gzip
import importlib
import json
import re
from collections.abc import Sequence
from importlib import resources

from lmjax.errors import UserError
from lmjax.pages import charts
from lmjax.pages.markup import Html, tag

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; form-action 'none'; base-uri 'none'"
)


class Section:
    """A part of a page with a heading of its own."""

    def __init__(self, title: str, *parts: str):
        """Of HTML; plain strings are paragraphs."""
        self.title, self.parts = title, parts

    @property
    def anchor(self) -> str:
        """Its name within the page's address."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


class Page:
    """A page; `render` makes the file."""

    def __init__(self, title: str, subtitle: str, sections: Sequence[Section], style: str = ""):
        """`style` holds rules of CSS for this page alone."""
        self._title, self._subtitle = title, subtitle
        self._sections, self._style = sections, style
        self._columns, self._specs = charts.Columns(), []

    def render(self) -> bytes:
        """The file.

        Raises:
          UserError: there are charts, and plotly is not installed.
        """
        body = [self._section(section) for section in self._sections]
        contents = [tag("a", s.title, href=f"#{s.anchor}") for s in self._sections]
        nav = [tag("nav", *contents, aria_label="Contents")] if len(contents) > 2 else []
        head = [
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("link", rel="icon", href="data:,"),
            tag("title", self._title),
            tag("style", Html(_static("page.css") + self._style)),
        ]
        header = tag("header", tag("h1", self._title), tag("p", self._subtitle, class_="subtitle"))
        scripts = self._scripts() if self._specs else []
        whole = [tag("head", *head), tag("body", header, *nav, tag("main", *body), *scripts)]
        return f"<!doctype html>\n{tag('html', *whole, lang='en')}\n".encode()

    def _section(self, section: Section) -> Html:
        parts = [self._part(part) for part in section.parts]
        return tag("section", tag("h2", section.title), *parts, id=section.anchor)

    def _part(self, part: str) -> Html:
        if isinstance(part, charts.ChartHtml):
            return self._chart(part.chart)
        return part if isinstance(part, Html) else tag("p", part)

    def _chart(self, chart: charts.Chart) -> Html:
        number = len(self._specs)
        self._specs.append(self._columns.spec(chart))
        toggles = [
            tag(
                "button",
                f"log {axis}",
                type="button",
                data_axis=axis,
                aria_pressed=str(log).lower(),
            )
            for axis, log in (("x", chart.log_x), ("y", chart.log_y))
        ]
        bar = tag("figcaption", tag("span", chart.title), tag("span", *toggles, class_="toggles"))
        label = f"{chart.title}. {chart.about}".strip()
        plot = tag("div", class_="plot", role="img", aria_label=label)
        return tag("figure", bar, plot, class_="chart", data_chart=str(number))

    def _scripts(self) -> list[Html]:
        numbers = {"charts": self._specs, "columns": self._columns.columns}
        said = json.dumps(numbers, allow_nan=False, separators=(",", ":"))
        packed = {"numbers": said, "plotly": _plotly()}
        return [
            *[
                tag("script", Html(_packed(text)), type="application/gzip", id=name)
                for name, text in packed.items()
            ],
            tag("script", Html(_static("page.js"))),
            tag("noscript", tag("p", "The curves of this page are drawn by JavaScript.")),
        ]


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _static(name: str) -> str:
    return (resources.files(__package__) / "static" / name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        return importlib.import_module("plotly.offline").get_plotlyjs()
    except ImportError as error:
        raise UserError(
            f"curves need plotly, and it is not here ({error}); pip install 'lmjax[report]'"
        ) from error
