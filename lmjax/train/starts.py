"""How often a run has begun at the same step.

A machine that is taken away every few minutes, or a step that always kills its process, starts a
run over and over without ever coming to the next save; and nobody is told, unless by this.
"""

from __future__ import annotations

import json
import os
import sys
import time

from lmjax.train import metrics

MANY = 4  # starts in a row, from which on it is worth a warning


def note(file: os.PathLike, step: int) -> int:
    """Adds the start from `step`; returns how many in a row were from there, this one included."""
    metrics.cut(file, sys.maxsize)  # a torn last line
    before = [row["step"] for row in metrics.read(file)]
    with open(file, "a", encoding="utf-8") as out:
        out.write(json.dumps({"step": step, "time": round(time.time(), 3)}) + "\n")
    others = [number for number, found in enumerate(before) if found != step]
    return len(before) - (others[-1] + 1 if others else 0) + 1
