"""A run as its report needs it, from the files of its workdir alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax import flops, paths
from lmjax.errors import UserError
from lmjax.export import facts as facts_lib
from lmjax.export.facts import Facts
from lmjax.report import log
from lmjax.report.log import Timeline
from lmjax.train import meta, workdir

_ALL_STEPS = 2**62


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
      label: what it is called on the page.
      path: of its workdir, as it was given.
      facts: what a model card knows.
      train, held_out: columns of metrics.jsonl, float64 [N]; NaN where a row lacks a field.
      timeline: of its log.
      samples: rows of samples.jsonl.
    """

    label: str
    path: str
    facts: Facts
    train: dict[str, np.ndarray]
    held_out: dict[str, np.ndarray]
    timeline: Timeline
    samples: Sequence[Mapping[str, Any]]

    @property
    def step(self) -> int:
        """The last one that there is a row of."""
        ends = [int(x["step"][-1]) for x in (self.train, self.held_out) if len(x.get("step", ()))]
        return max(ends, default=0)

    @property
    def num_parameters(self) -> int:
        return sum(flops.num_params(self.facts.config.model).values())

    @property
    def goodput(self) -> float | None:
        """Share of the time since its beginning that went into steps which counted."""
        whole = self.timeline.seconds
        return min(1.0, self.facts.seconds / whole) if whole > 0 and self.facts.seconds else None


def gather(names: Sequence[str]) -> list[Run]:
    """The runs in some workdirs.

    Raises:
      UserError: one holds no run, or has no rows of metrics yet.
    """
    found = [workdir.existing(name)[0].rstrip("/") for name in names]
    return [_run(path, label) for path, label in zip(found, _labels(found), strict=True)]


def _labels(names: Sequence[str]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [name.split("/") for name in names]
    for count in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-count:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    raise UserError("the same workdir is given twice; name each once")


def _run(path: str, label: str) -> Run:
    facts = facts_lib.gather(path, _ALL_STEPS, meta.newest(path))
    if not facts.rows:
        raise UserError(
            f"{path} has no rows in metrics.jsonl yet; wait for the first (config.log.every="
            f"{facts.config.log.every} steps), or name another workdir"
        )
    said = paths.read_bytes(paths.join(path, "lmjax.log")) or b""
    return Run(
        label,
        path,
        facts,
        _columns(row for row in facts.rows if row["split"] == "train"),
        _columns(row for row in facts.rows if row["split"] == "eval"),
        log.timeline(said.decode(errors="replace")),
        list(_samples(paths.read_bytes(paths.join(path, "samples.jsonl")) or b"")),
    )


def _columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    rows = list(rows)
    names = dict.fromkeys(
        name
        for row in rows
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    nan = float("nan")
    return {
        name: np.array([row.get(name, nan) for row in rows], np.float64)
        for name in names
        if all(isinstance(row.get(name, nan), int | float) for row in rows)
    }


def _samples(content: bytes) -> Iterable[dict[str, Any]]:
    for line in content.splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)
