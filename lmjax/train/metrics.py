"""metrics.jsonl, the source of truth of a run's numbers, and whoever else is shown them.

One JSON object per line, with `step` and `split` ("train" or "eval") first; what is of one source
of a mixture has its name behind a slash, as in "loss/en". Rows up to step n are
on disk before the save of n begins, and a restore of n cuts what lies beyond n; so the file of a
run that was killed and resumed equals that of one that was not, timings aside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from lmjax import paths
from lmjax.train import samples as samples_lib
from lmjax.train.samples import Sample
from lmjax.train.sinks import Sink

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


class MetricsWriter:
    """Appends rows and samples, each on disk when it is written, and hands them to sinks."""

    def __init__(
        self,
        path: epath.PathLike,
        samples: epath.PathLike | None = None,
        sinks: Sequence[Sink] = (),
    ):
        """Appends to the files `path`, metrics, and `samples`, where there are to be some."""
        self._file = open(os.fspath(path), "a", encoding="utf-8")  # noqa: SIM115
        self._samples, self._sinks = samples, sinks

    def write(self, step: int, split: str, row: dict[str, Any]) -> None:
        """Writes a row, `step` and `split` in front of its other fields."""
        self._file.write(json.dumps({"step": step, "split": split, **row}) + "\n")
        self._file.flush()
        for sink in self._sinks:
            sink.scalars(step, split, row)

    def write_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Writes what the model made of some texts."""
        with open(os.fspath(self._samples), "a", encoding="utf-8") as file:
            file.write(samples_lib.lines(step, samples))
            file.flush()
            os.fsync(file.fileno())
        for sink in self._sinks:
            sink.texts(step, samples)

    def sync(self) -> None:
        """Forces what was written to the disk."""
        os.fsync(self._file.fileno())
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        self.sync()
        self._file.close()
        for sink in self._sinks:
            sink.close()
