"""What a person sees while a run goes on.

On a terminal a progress bar stays at the bottom and messages scroll above it; elsewhere (a file,
a notebook's log, CI) there are plain lines only. Every message also goes to WORKDIR/lmjax.log with
its time.
"""

from __future__ import annotations

import logging
import os
import time

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lmjax import redact
from lmjax.data.progress import is_live

logger = logging.getLogger("lmjax")

_QUIET_SECONDS = 10.0  # a plain log says something about a long step this often


def make_console() -> RichConsole:
    """A console for tables: as wide as the terminal, or wide enough where there is none."""
    console = RichConsole(emoji=False)  # ":100:" of a text or a step is none
    return console if is_live(console) else RichConsole(width=132, emoji=False)


class _Handler(logging.Handler):
    def __init__(self, console: RichConsole, host: int):
        super().__init__(logging.WARNING if host else logging.INFO)
        self._console, self._before = console, f"host {host}: " if host else ""

    def emit(self, record: logging.LogRecord) -> None:
        style = {logging.WARNING: "yellow", logging.ERROR: "red"}.get(record.levelno)
        self._console.print(
            self._before + redact.redacted(record.getMessage()),
            style=style,
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


class _Formatter(logging.Formatter):
    """Lines of the log file, which people send around: without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact.redacted(super().format(record))


class Console:
    """Messages and progress of one process."""

    def __init__(self, host: int = 0) -> None:
        """Of several hosts, only the first shows more than warnings."""
        self._rich, self._host = make_console(), host
        self._progress: Progress | None = None
        self._task = None
        self._last_line = time.monotonic()
        self._file: logging.Handler | None = None
        self._handler = _Handler(self._rich, host)
        logger.handlers = [self._handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False

    @property
    def live(self) -> bool:
        """Whether there is a terminal to draw on."""
        return not self._host and is_live(self._rich)

    def log_to(self, path: os.PathLike) -> None:
        """Copies all messages from now on into a file."""
        self._file = logging.FileHandler(os.fspath(path), encoding="utf-8")
        # Of a full disk: what matters says so itself, and not with a traceback for every line.
        self._file.handleError = lambda record: None
        self._file.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(self._file)

    def log_only(self, message: str) -> None:
        """Into the log file, not on the screen."""
        if self._file is not None:
            self._file.handle(logger.makeRecord("lmjax", logging.ERROR, "", 0, message, (), None))

    def start(self, done: int, total: int) -> None:
        """Opens the progress bar at step `done` of `total`."""
        if not self.live:
            return
        self._progress = Progress(
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._rich,
            transient=True,
        )
        self._task = self._progress.add_task("train", total=total, completed=done, note="compiling")
        self._progress.start()

    def step(self, done: int, note: str) -> None:
        """Moves the bar; without a terminal nothing happens."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, note=note)

    def within_step(self, note: str) -> None:
        """News from within a long step: on the bar, or a plain line now and then."""
        if self._progress is not None:
            self._progress.update(self._task, note=note)
        elif time.monotonic() - self._last_line > _QUIET_SECONDS:
            self.line(note)

    def line(self, text: str) -> None:
        """A plain line of progress."""
        self._last_line = time.monotonic()
        logger.info(text)

    def stop(self) -> None:
        """Takes the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def close(self) -> None:
        """Ends the bar and the log file."""
        self.stop()
        if self._file is not None:
            logger.removeHandler(self._file)
            self._file.close()
            self._file = None


def duration(seconds: float) -> str:
    """A length of time in the two units a person would use."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    for unit, size, smaller, small in (
        ("years", 31_557_600, "days", 86_400),
        ("days", 86_400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if seconds >= size:
            whole = int(seconds // size)
            rest = int((seconds - whole * size) // small)
            if whole >= 1000:
                return f"{whole:,} {unit}"
            return f"{whole} {unit} {rest} {smaller}" if rest else f"{whole} {unit}"
    raise AssertionError


def count(number: float) -> str:
    """A number with three digits and a suffix: 124M, 1.53G."""
    for suffix in ("", "k", "M", "G", "T", "P", "E"):
        if abs(number) < 999.5:
            return f"{number:.3g}{suffix}"
        number /= 1000
    return f"{number:.3g}Z"


def size(num_bytes: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} TiB"
