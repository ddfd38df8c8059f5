"""WORKDIR/ledger.jsonl: for every step a hash of the rows it was trained on.

Lines `{"step": ..., "rows": SHA-256}` over the numbers of the rows in the order of the run and of
the windows they show. Two runs that saw the same examples in the same order have the same file; a
restore of step n cuts what lies beyond n.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

import numpy as np

from lmjax.batch import INFO_PREFIX
from lmjax.parallel import hosts
from lmjax.train import metrics


class Ledger:
    """Appends a line for each step, on disk at once."""

    def __init__(self, path: os.PathLike, start: int):
        """Goes on behind step `start`; later lines are dropped."""
        metrics.cut(path, start)
        self._file = open(os.fspath(path), "a", encoding="utf-8")  # noqa: SIM115

    def write(self, step: int, batch: Mapping[str, np.ndarray]) -> None:
        """Notes the rows of a step, of which each host has some."""
        fields = hosts.gathered(
            [np.asarray(batch[INFO_PREFIX + name], "<i8") for name in ("row", "window")]
        )
        digest = hashlib.sha256(b"".join(field.tobytes() for field in fields)).hexdigest()
        self._file.write(json.dumps({"step": step, "rows": digest}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
