"""HTML from Python: what is a plain string is escaped, what is `Html` stands as it is."""

from __future__ import annotations

import html
import itertools
from collections.abc import Collection, Sequence


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


_VOID = {"br", "hr", "img", "input", "meta", "link"}


def escape(text: str) -> Html:
    """The text as HTML; `Html` is returned as it is."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def join(children: Sequence[str], between: str = "") -> Html:
    """All of them, one behind the other."""
    return Html(escape(between).join(map(escape, children)))


def tag(name: str, /, *children: str, **attributes: str | bool | None) -> Html:
    """An element; `class_` is `class`, `data_x` is `data-x`, True a bare attribute, None none."""
    said = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        said += f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
    if name in _VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{join(children)}</{name}>")


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Collection[int] = ()
) -> Html:
    """A table that scrolls by itself where the page is narrow.

    Args:
      header: of the columns.
      rows: cells, as many as columns.
      numeric: columns of numbers, set to the right.
    """
    align = ["number" if column in numeric else None for column in range(len(header))]
    head = [tag("th", x, class_=a, scope="col") for x, a in zip(header, align, strict=True)]
    body = [
        tag("tr", *[tag("td", x, class_=a) for x, a in zip(row, align, strict=True)])
        for row in rows
    ]
    whole = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex="0")


def details(summary: str, *children: str, open_: bool = False) -> Html:
    """What is shown on a click."""
    return tag("details", tag("summary", summary), *children, open=open_)


def facts(pairs: Sequence[tuple[str, str]]) -> Html:
    """Names and values, side by side."""
    parts = [(tag("dt", name), tag("dd", value)) for name, value in pairs]
    return tag("dl", *itertools.chain.from_iterable(parts))


def bars(names: Sequence[str], values: Sequence[float], *, x: str = "", about: str = "") -> Html:
    """Horizontal bars with their numbers, as a table that screen readers read.

    Args:
      names, values: of the bars, top down; none is negative.
      x: what is measured.
      about: the caption.
    """
    largest = max([*values, 0.0]) or 1.0
    rows = []
    for name, value in zip(names, values, strict=True):
        bar = tag("span", class_="bar", style=f"width:{100 * value / largest:.2f}%")
        number = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
        rows.append(
            tag(
                "tr",
                tag("th", name, scope="row"),
                tag("td", number, class_="number"),
                tag("td", bar, class_="track"),
            )
        )
    caption = tag("caption", about or x)
    return tag("div", tag("table", caption, tag("tbody", *rows), class_="bars"), class_="scroll")
