"""What the user is told of the preparation of a store: how far it has come, then what is in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import rich.console
import rich.progress

from lmjax.data.text import SKIP_REASONS


class Progress(Protocol):
    """Told (bytes done, bytes in all) and, where tokens are counted, how many there are so far."""

    def __call__(self, done: int, total: int, tokens: int | None = None) -> None: ...


_SECONDS_BETWEEN_LINES = 10.0


def is_live(console: rich.console.Console) -> bool:
    """Whether there is a terminal to draw on; FORCE_COLOR, which Jupyter and CI set, makes none."""
    return console.is_terminal and console.file.isatty()


@contextmanager
def shown(title: str, log: Callable[[str], None]) -> Iterator[Progress]:
    """Yields the callback that `prepare` takes: a bar on a terminal, else lines through `log`."""
    console = rich.console.Console(stderr=True)
    if not is_live(console):
        yield _lines(title, log)
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title)
        yield lambda done, total, tokens=None: bar.update(
            task, completed=done, total=total, description=_described(title, tokens)
        )


def _described(what: str, tokens: int | None) -> str:
    return what if tokens is None else f"{what}: {tokens / 1e6:.1f}M tokens"


def _lines(title: str, log: Callable[[str], None]) -> Progress:
    began = last = time.monotonic()

    def line(done: int, total: int, tokens: int | None = None) -> None:
        nonlocal last
        if (now := time.monotonic()) - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        share = f"{title}: {100 * done / max(1, total):.0f} %"
        counted = "" if tokens is None else f", {tokens / 1e6:.1f}M tokens"
        log(f"{share}{counted}, {now - began:.0f} s")

    return line


def skipped_line(counts: dict[str, int], template: str = "{}") -> str:
    """ "3 not JSON, 1 empty" laid into `template`; "" where nothing was skipped."""
    reasons = [f"{counts[k]} {why}" for k, why in SKIP_REASONS.items() if counts.get(k)]
    return template.format(", ".join(reasons)) if reasons else ""


def summary(manifest: dict[str, Any]) -> str:
    """One line on what a store holds: documents, tokens, bytes per token, what was skipped."""
    splits = manifest["splits"]
    tokens = sum(s["num_tokens"] for s in splits.values())
    size = sum(s["num_bytes"] for s in splits.values())
    parts = [
        f"{name} {s['num_documents']:,} documents, {s['num_tokens']:,} tokens"
        for name, s in splits.items()
    ]
    skipped = skipped_line(manifest["counts"], "; skipped: {}")
    return f"{'; '.join(parts)}; {size / tokens:.2f} bytes per token{skipped}"
