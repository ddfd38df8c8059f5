"""What `lmjax.log` says of a run's time: when it was there, where it went on, what was lost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) ([A-Z]+) (.*)")
_STEP = re.compile(r"step (\d+)/\d+\b")
_GOING_ON = re.compile(r"going on from step (\d+) in ")
_BEGINS = re.compile(r".* parameters, objective ")  # the line on top of every start


@dataclass(frozen=True)
class Entry:
    """A line of the log: local time in seconds, level, text."""

    time: float
    level: str
    text: str


@dataclass
class Start:
    """A process that ran the run.

    Attributes:
      began, ended: its first and last line, seconds of local time.
      step: that it went on from.
      reached: the last step that it told of.
    """

    began: float
    ended: float
    step: int = 0
    reached: int = 0


@dataclass(frozen=True)
class Timeline:
    """The processes of a run, in order, and what was warned of."""

    starts: Sequence[Start] = ()
    troubles: Sequence[Entry] = ()

    @property
    def seconds(self) -> float:
        """From the first line to the last, pauses between processes included."""
        return self.starts[-1].ended - self.starts[0].began if self.starts else 0.0

    @property
    def away(self) -> float:
        """Seconds in which no process was there."""
        pairs = zip(self.starts, self.starts[1:], strict=False)
        return sum(max(0.0, after.began - before.ended) for before, after in pairs)

    @property
    def repeated(self) -> int:
        """Steps that were made again, as far as the log knows."""
        pairs = zip(self.starts, self.starts[1:], strict=False)
        return sum(max(0, before.reached - after.step) for before, after in pairs)


def entries(text: str) -> Iterator[Entry]:
    """The lines of a log; tracebacks between them are left out."""
    for line in text.splitlines():
        if found := _LINE.fullmatch(line):
            moment = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S")
            yield Entry(moment.timestamp() + int(found[2]) / 1000, found[3], found[4])


def timeline(text: str) -> Timeline:
    """What a log says; of a log without lines, nothing."""
    starts: list[Start] = []
    troubles = []
    for entry in entries(text):
        if not starts or (_BEGINS.match(entry.text) and starts[-1].reached):
            starts.append(Start(entry.time, entry.time))
        start = starts[-1]
        start.ended = entry.time
        if found := _GOING_ON.match(entry.text):
            start.step = start.reached = int(found[1])
        elif found := _STEP.match(entry.text):
            start.reached = max(start.reached, int(found[1]))
        if entry.level in ("WARNING", "ERROR", "CRITICAL"):
            troubles.append(entry)
    return Timeline(tuple(starts), tuple(troubles))
