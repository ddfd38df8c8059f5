"""metrics.jsonl, the source of truth of a run's numbers, and TensorBoard beside it.

One JSON object per line, with `step` and `split` ("train" or "eval") first; what is of one source
of a mixture has its name behind a slash, as in "loss/en". Rows up to step n are
on disk before the save of n begins, and a restore of n cuts what lies beyond n; so the file of a
run that was killed and resumed equals that of one that was not, timings aside.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from lmjax import paths

# What a clock decides, and so may differ between two equal runs.
TIMINGS = ("tokens_per_second", "mfu", "seconds")


def of_sources(field: str, names: Iterable[str], values: Iterable[Any]) -> dict[str, Any]:
    """Fields of a row for the sources of a mixture, by their names."""
    return {f"{field}/{name}": value for name, value in zip(names, values, strict=True)}


def read(path: epath.PathLike) -> Iterator[dict[str, Any]]:
    """Rows of a metrics file; a torn last line (of a killed run) is left out."""
    for line in (paths.read_bytes(path) or b"").splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)


def cut(path: epath.PathLike, step: int) -> int:
    """Drops rows beyond `step` and a torn last line; returns how many lines went."""
    path = epath.Path(path)
    if not path.exists():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [x for x in lines if x.endswith(b"\n") and json.loads(x)["step"] <= step]
    if len(kept) < len(lines):
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(b"".join(kept))
        temporary.replace(path)
    return len(lines) - len(kept)


def _summary_writer() -> type:
    """tensorboardX's writer, imported as where PyTorch is not installed.

    It imports PyTorch wherever it finds it, for features that are not used here; that costs seconds
    and hundreds of megabytes. The import is slow enough to be left to the process that writes.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # makes `import torch` an ImportError, which it handles
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


class MetricsWriter:
    """Appends rows, each on disk when `write` returns."""

    def __init__(self, path: epath.PathLike, tensorboard: epath.PathLike, *, purge_step: int):
        SummaryWriter = _summary_writer()
        self._file = open(os.fspath(path), "a", encoding="utf-8")  # noqa: SIM115
        self._events = SummaryWriter(os.fspath(tensorboard), purge_step=purge_step)

    def write(self, step: int, split: str, row: dict[str, Any]) -> None:
        """Writes a row, `step` and `split` in front of its other fields."""
        self._file.write(json.dumps({"step": step, "split": split, **row}) + "\n")
        self._file.flush()
        for name, value in row.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def sync(self) -> None:
        """Forces what was written to the disk."""
        os.fsync(self._file.fileno())
        self._events.flush()

    def close(self) -> None:
        self.sync()
        self._file.close()
        self._events.close()
