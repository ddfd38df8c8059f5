"""How long it takes from the start of the process to the first step, and again with its cache.

Each start is the real `python -m lmjax.main` in a process and a workdir of its own, ended as soon
as it says that its first step is done. The text is prepared beforehand; nothing is compiled before
the first of each round, and everything before the second.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmjax.errors import UserError

_DONE = "first step"  # what `train.reporter` says of it
_CACHE = {  # also what is compiled in less than a second
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


@dataclass(frozen=True)
class Startup:
    """Seconds from the start of the process to its first step, medians.

    Attributes:
      first: with an empty compilation cache.
      second: with what the first has left there.
      rounds: of both.
    """

    first: float
    second: float
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"second_to_first": self.second / self.first}


def measure(config_file: str, overrides: Mapping[str, Any], seconds: float) -> Startup:
    """Starts runs for about so long, both kinds at least once.

    Args:
      config_file: whose text is prepared already.
      overrides: "a.b" -> value.
      seconds: how long in all.

    Raises:
      UserError: a run ended before its first step.
    """
    found, end = [], time.monotonic() + seconds
    while not found or time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            start = lambda name, folder=folder: _start(config_file, overrides, Path(folder), name)
            found.append((start("first"), start("second")))
    first, second = (statistics.median(each) for each in zip(*found, strict=True))
    return Startup(first, second, len(found))


def _start(config_file: str, overrides: Mapping[str, Any], folder: Path, name: str) -> float:
    command = [sys.executable, "-m", "lmjax.main", f"--config={config_file}"]
    command += [f"--workdir={folder / name}"]
    command += [f"--config.{field}={value}" for field, value in overrides.items()]
    environment = os.environ | _CACHE | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    with (folder / f"{name}.err").open("w+") as errors:
        began, took = time.perf_counter(), None
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process:
            for line in process.stdout:
                if _DONE in line:
                    took = time.perf_counter() - began
                    break
            process.kill()
        if took is None:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["it says nothing"])[-1]
            raise UserError(f"the run ended before its first step: {last}")
    return took
