"""A list of commands that need one another, run some at a time, and again from where they stopped.

Each job has NAME.log and NAME.json in a folder: what it printed, and its end. One that has ended
well is not run again, unless its command, or that of a job that it needs, is another now.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmjax import paths
from lmjax.errors import UserError
from lmjax.train.console import duration

_PAUSE = 0.2  # seconds between two looks at what is running
_ONE_CORE = "--xla_cpu_multi_thread_eigen=false"


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
      name: also of its files; what stands before the first '/' is its kind.
      command: program and arguments.
      needs: names of the jobs that have to end well before.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Jobs of one kind take about as long as each other."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class End:
    """How a job ended.

    Attributes:
      key: hash of its command and of those of all that it needs.
      code: exit code.
      seconds: that it took.
    """

    key: str
    code: int
    seconds: float


@dataclass
class Runner:
    """Runs jobs.

    Attributes:
      folder: of their logs and ends.
      workers: how many run at a time.
      cores: one for each worker, which its jobs keep to; (): wherever there is room.
      tell: is told what goes on, line by line.
    """

    folder: Path
    workers: int = 1
    cores: Sequence[int] = ()
    tell: Callable[[str], None] = print
    _running: dict[str, tuple[subprocess.Popen, int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cores and shutil.which("taskset") is None:
            raise UserError("taskset, which keeps jobs to cores, is not here; name no cores")

    def run(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Runs what has not ended well yet; jobs that stand first begin first.

        Returns:
          Name -> why, of the jobs that failed or wait for one that did.

        Raises:
          UserError: two jobs share a name, or one needs what does not stand before it.
        """
        keys = _keys(jobs)
        ends = {job.name: self.end(job.name) for job in jobs}
        done = {name: e for name, e in ends.items() if e and (e.key, e.code) == (keys[name], 0)}
        waiting = {job.name: job for job in jobs if job.name not in done}
        failed: dict[str, str] = {}
        began_with = len(done)
        if began_with:
            self.tell(f"{began_with} of {len(jobs)} jobs are done already")
        try:
            while waiting or self._running:
                self._give_up(waiting, failed)
                self._start(waiting, done)
                for name, end in self._ended(keys):
                    if end.code == 0:
                        done[name] = end
                        left = self._left([*waiting.values()], done, jobs)
                        line = f"done in {duration(end.seconds)}{left}"
                    else:
                        failed[name] = last_line(self.log(name))
                        line = f"FAILED: {failed[name]} ({self.log(name)})"
                    self.tell(f"[{len(done) + len(failed)}/{len(jobs)}] {name} {line}")
                if self._running:
                    time.sleep(_PAUSE)
        finally:
            self._stop()
        return failed

    def log(self, name: str) -> Path:
        """What a job printed."""
        return self.folder / f"{name}.log"

    def end(self, name: str) -> End | None:
        """How a job ended when it last ran; None: it did not."""
        file = self.folder / f"{name}.json"
        return End(**json.loads(file.read_text())) if file.exists() else None

    def _give_up(self, waiting: dict[str, Job], failed: dict[str, str]) -> None:
        for job in list(waiting.values()):
            if broken := [name for name in job.needs if name in failed]:
                del waiting[job.name]
                failed[job.name] = f"not run: it needs {broken[0]}"

    def _start(self, waiting: dict[str, Job], done: Mapping[str, End]) -> None:
        slots = set(range(self.workers)) - {slot for _, slot, _ in self._running.values()}
        for job in list(waiting.values()):
            if not slots:
                return
            if all(name in done for name in job.needs):
                del waiting[job.name]
                self._launch(job, min(slots))
                slots.remove(min(slots))

    def _launch(self, job: Job, slot: int) -> None:
        log = self.log(job.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        command, environment = list(job.command), dict(os.environ)
        if self.cores:
            command = ["taskset", "-c", str(self.cores[slot]), *command]
            flags = environment.get("XLA_FLAGS", "")
            environment["XLA_FLAGS"] = f"{flags} {_ONE_CORE}".strip()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        self._running[job.name] = process, slot, time.monotonic()
        self.tell(f"{job.name} begins")

    def _ended(self, keys: Mapping[str, str]) -> list[tuple[str, End]]:
        found = []
        for name, (process, _, began) in list(self._running.items()):
            if (code := process.poll()) is None:
                continue
            del self._running[name]
            end = End(keys[name], code, time.monotonic() - began)
            content = json.dumps(vars(end), indent=1)
            paths.write_bytes(str(self.folder / f"{name}.json"), f"{content}\n".encode())
            found.append((name, end))
        return found

    def _left(self, waiting: Sequence[Job], done: Mapping[str, End], jobs: Sequence[Job]) -> str:
        """Time left, by what jobs of the same kind took, or jobs at large."""
        kinds = {job.name: job.kind for job in jobs}
        took: dict[str, list[float]] = {}
        for name, end in done.items():
            took.setdefault(kinds[name], []).append(end.seconds)
        at_large = sum(sum(x) for x in took.values()) / sum(map(len, took.values()))
        mean = {kind: sum(x) / len(x) for kind, x in took.items()}
        seconds = sum(mean.get(job.kind, at_large) for job in waiting)
        for name, (_, _, began) in self._running.items():
            whole = mean.get(kinds[name], at_large)
            seconds += max(0.0, whole - (time.monotonic() - began))
        return f", {duration(seconds / self.workers)} to go" if seconds else ""

    def _stop(self) -> None:
        """Ends what still runs: when this process is told to end, so are its jobs."""
        for process, _, _ in self._running.values():
            process.terminate()
        for process, _, _ in self._running.values():
            process.wait()
        self._running.clear()


def last_line(log: Path) -> str:
    """What went wrong, by a log: its last line of an error, else its last line."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it printed nothing"])[-1]


def _keys(jobs: Sequence[Job]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for job in jobs:
        if job.name in keys:
            raise UserError(f"two jobs are called {job.name}; give each its own name")
        if missing := [name for name in job.needs if name not in keys]:
            raise UserError(f"{job.name} needs {missing[0]}; name a job that stands before it")
        said = json.dumps([job.command, [keys[name] for name in job.needs]])
        keys[job.name] = hashlib.sha256(said.encode()).hexdigest()[:16]
    return keys
