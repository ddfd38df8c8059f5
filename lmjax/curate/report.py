"""A ledger as people read it: a funnel in the terminal, and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lmjax.curate import ledger

_WIDTH = 36  # of the widest bar
_NAMES = 12  # of each balance
_LEAST_SECONDS = 0.01  # that a rate is said of
_EIGHTHS = " ▏▎▍▌▋▊▉"


def shown(found: Mapping[str, Any]) -> RenderableType:
    """All of it, for a terminal."""
    parts: list[RenderableType] = [_funnel(found), Text(), _rules(found)]
    for kind, names in found["balance"].items():
        if len(names) > 1 or kind == "term":
            parts += [Text(), _balance(kind, names)]
    if found["rules_left_out"]:
        parts += [Text(), _left_out(found)]
    parts += [Text(), _times(found)]
    return Group(*parts)


def summary(found: Mapping[str, Any]) -> str:
    """One line."""
    came, kept = found["in"], found["kept"]
    share = kept["documents"] / max(1, came["documents"])
    return (
        f"kept {kept['documents']:,} of {came['documents']:,} documents ({share:.1%}), "
        f"{size(kept['bytes'])} of {size(came['bytes'])}, {kept['tokens']:,} "
        f"{_tokens(found)}"
    )


def _tokens(found: Mapping[str, Any]) -> str:
    own = found["recipe"]["tokenizer"] is None
    return "words and marks" if own else "tokens"


def size(num_bytes: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000 or unit == "GB":
            return f"{num_bytes:,.0f} {unit}" if unit == "bytes" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError


def _bar(share: float) -> str:
    eighths = round(share * _WIDTH * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _funnel(found: Mapping[str, Any]) -> Table:
    came = found["in"]["documents"]
    table = Table(title="documents left", box=None, title_justify="left")
    for name, justify in (("after", "left"), ("", "left"), ("left", "right"), ("dropped", "right")):
        table.add_column(name, justify=justify)
    table.add_row("", _bar(1.0), f"{came:,}", "")
    for step, gone, left in ledger.funnel(found):
        table.add_row(step, _bar(left / max(1, came)), f"{left:,}", f"-{gone:,}" if gone else "")
    return table


def _rules(found: Mapping[str, Any]) -> Table:
    table = Table("step", "rule", "documents", "bytes", "tokens", title="dropped by rule")
    table.columns[1].overflow = "fold"  # names are those of folders: whole
    for column in table.columns[2:]:
        column.justify = "right"
    for rule, of in found["dropped"].items():
        table.add_row(
            of["step"], rule, f"{of['documents']:,}", size(of["bytes"]), f"{of['tokens']:,}"
        )
    kept = found["kept"]
    numbers = f"{kept['documents']:,}", size(kept["bytes"]), f"{kept['tokens']:,}"
    table.add_row("", "kept", *numbers, style="bold")
    return table


def _balance(kind: str, names: Mapping[str, Any]) -> Table:
    table = Table(kind, "before", "after", "share before", "share after", title=f"by {kind}")
    for column in table.columns[1:]:
        column.justify = "right"
    totals = [
        max(1, sum(of[when]["bytes"] for of in names.values())) for when in ("before", "after")
    ]
    largest = sorted(names, key=lambda name: (-names[name]["before"]["bytes"], name))
    for name in largest[:_NAMES]:
        before, after = names[name]["before"], names[name]["after"]
        shares = (
            f"{of['bytes'] / total:.1%}" for of, total in zip((before, after), totals, strict=True)
        )
        table.add_row(name, f"{before['documents']:,}", f"{after['documents']:,}", *shares)
    if more := len(names) - _NAMES:
        table.caption = f"and {more:,} more" if more > 0 else None
    return table


def _left_out(found: Mapping[str, Any]) -> Table:
    """Languages by what was not asked of them."""
    by_rules: dict[tuple[str, ...], list[str]] = {}
    for language, rules in found["rules_left_out"].items():
        by_rules.setdefault(tuple(rules), []).append(language)
    table = Table("languages", "were not judged by", title="rules that do not fit")
    for rules, languages in by_rules.items():
        table.add_row(" ".join(languages), "; ".join(rules))
    return table


def _times(found: Mapping[str, Any]) -> Table:
    table = Table("step", "seconds of work", "documents/s", "MB/s", title="time")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, of in found["times"].items():
        seconds, rates = of["seconds"], ("", "")
        if of["documents"] and seconds > _LEAST_SECONDS:
            rates = f"{of['documents'] / seconds:,.0f}", f"{of['bytes'] / seconds / 1e6:,.2f}"
        table.add_row(name.replace("_", " "), f"{of['seconds']:,.2f}", *rates)
    return table
