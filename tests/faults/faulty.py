"""A run in a process of its own, with faults on purpose."""

import os
import subprocess
import sys
from dataclasses import dataclass

from lmjax import faults


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def last(self):
        """The last line that a user sees."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def run(*arguments, fault="", allowed=True, timeout=300, **environment):
    """`python -m lmjax.main` to its end."""
    allow = [f"--{faults.FLAG}"] if allowed else []
    process = subprocess.run(
        [sys.executable, "-m", "lmjax.main", *map(str, arguments), *allow],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | {"XLA_FLAGS": "", faults.VARIABLE: fault} | environment,
    )
    return Ended(process.returncode, process.stdout, process.stderr)
