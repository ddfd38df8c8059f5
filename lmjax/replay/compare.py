"""Replayed rows of metrics beside those that the run wrote."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmjax.train.metrics import TIMINGS

Row = dict[str, Any]
_SHOWN = 3  # fields, in one line


@dataclass(frozen=True)
class Difference:
    """A field of a row that did not come out as it was written; None: it is not there."""

    step: int
    field: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        if None in (self.recorded, self.replayed):
            return f"{self.field} {self.recorded} is now {self.replayed}"
        by = abs(self.replayed - self.recorded)
        return f"{self.field} by {by:.3g} of {self.recorded:.6g}"


def differences(recorded: Row, replayed: Row | None) -> list[Difference]:
    """The fields of a recorded row that differ in any bit from the replayed one, timings aside."""
    step, mine = recorded["step"], replayed or {}
    names = [name for name in recorded | mine if name not in (*TIMINGS, "step", "split")]
    pairs = [(name, recorded.get(name), mine.get(name)) for name in names]
    return [Difference(step, *pair) for pair in pairs if not _same(*pair[1:])]


def _same(one: Any, other: Any) -> bool:
    both_nan = all(isinstance(x, float) and math.isnan(x) for x in (one, other))
    return one == other or both_nan


def told(found: Sequence[Difference], reasons: Sequence[str]) -> str:
    """One line on what differs and why that may be."""
    first = [each for each in found if each.step == found[0].step]
    more = f" and {len(first) - _SHOWN} more fields" * (len(first) > _SHOWN)
    fields = ", ".join(map(str, first[:_SHOWN]))
    steps = len({each.step for each in found})
    rows = f" and {steps - 1} more rows" * (steps > 1)
    why = "; ".join(reasons) or "no difference of hardware, versions or settings is known"
    return f"not as recorded: row of step {first[0].step} differs in {fields}{more}{rows} ({why})"


def reasons(
    meta: Mapping[str, Any],
    hardware: Mapping[str, Any],
    versions: Mapping[str, str],
    changes: Iterable[Mapping[str, Any]],
) -> list[str]:
    """What is not as it was, which bits may hang on.

    Args:
      meta: what a checkpoint of the run says of itself.
      hardware, versions: of this replay, as a checkpoint would say them.
      changes: of free fields, since the run began.
    """
    pairs = [
        (name, now, meta.get(part, {}).get(name, now))
        for part, mine in (("hardware", hardware), ("versions", versions))
        for name, now in mine.items()
    ]
    found = [f"{name} was {then}, is {now}" for name, now, then in pairs if now != then]
    fields = [f"config.{change['field']}" for change in changes]
    return found + [f"{name} was changed during the run" for name in dict.fromkeys(fields)]
