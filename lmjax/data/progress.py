"""Shows how far the preparation of a store has come: a bar on a terminal, else now and then a line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.console
import rich.progress

from lmjax.data.prepare import Progress

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def shown(title: str, log: Callable[[str], None]) -> Iterator[Progress]:
    """Yields the callback that `prepare` takes; `log` gets the lines where there is no terminal."""
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
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
        yield lambda done, total, tokens: bar.update(
            task, completed=done, total=total, description=f"{title}: {tokens / 1e6:.1f}M tokens"
        )


def _lines(title: str, log: Callable[[str], None]) -> Progress:
    began = last = time.monotonic()

    def line(done: int, total: int, tokens: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        share = 100 * done / max(1, total)
        log(f"{title}: {share:.0f} %, {tokens / 1e6:.1f}M tokens, {now - began:.0f} s")

    return line
