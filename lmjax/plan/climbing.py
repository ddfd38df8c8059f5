"""The runs of a ladder, trained: some at a time, and again from where they stopped.

Each is `lmjax.main` in a process with one thread of XLA, as many at a time as there are cores:
small products gain nothing from several. What is done is in the ladder's folder, so the same call
goes on where it was stopped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from lmjax.errors import UserError
from lmjax.exit_codes import PREEMPTED
from lmjax.plan.ladder import Rung, Tell

_SECONDS_BETWEEN = 15.0


def train(runs: Sequence[Rung], tell: Tell, workers: int | None = None) -> float:
    """Trains what is not trained yet; returns the seconds that it took.

    Args:
      runs: from `ladder.rungs`.
      tell: is told of every run that ends and, between, how long it will go on.
      workers: runs at a time; None: one per core.

    Raises:
      UserError: a run failed; its log says more.
    """
    began = time.monotonic()
    waiting = [rung for rung in runs if rung.result() is None]
    workers = workers or os.cpu_count() or 1
    clock = _Clock(runs, waiting, tell)
    active: dict[Rung, subprocess.Popen] = {}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # or runs would go on alone
    try:
        while waiting or active:
            while waiting and len(active) < workers:
                rung = waiting.pop(0)
                active[rung] = _start(rung)
            time.sleep(0.2)
            for rung in [rung for rung, process in active.items() if process.poll() is not None]:
                _ended(rung, active.pop(rung).returncode)
                clock.ended(rung)
            clock.tick()
    finally:
        _stop(active.values())
        signal.signal(signal.SIGTERM, before)
    return time.monotonic() - began


def _start(rung: Rung) -> subprocess.Popen:
    """A run in a process of its own, whose output goes beside its workdir."""
    rung.folder.mkdir(parents=True, exist_ok=True)
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    # What is planned for may not be here; the ladder's models are for CPUs.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}
    environment.pop("JAX_ENABLE_COMPILATION_CACHE", None)
    command = [sys.executable, "-m", "lmjax.main", f"--config={rung.write_config()}"]
    with open(rung.folder / f"{rung.name}.log", "a", encoding="utf-8") as log:
        return subprocess.Popen(
            [*command, f"--workdir={rung.workdir}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def _ended(rung: Rung, code: int) -> None:
    if code == 0 and rung.result() is not None:
        return
    log = rung.folder / f"{rung.name}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1] if lines else f"exit code {code}"
    if code == PREEMPTED:
        said = "it was told to stop"
    raise UserError(
        f"the run {rung.name} of the ladder did not come to its end ({said}); see {log}, and give "
        "the same command again to go on"
    )


def _stop(processes: Collection[subprocess.Popen]) -> None:
    """Lets runs save and end; those that do not are killed."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@dataclass
class _Clock:
    """Says how far a ladder has come."""

    runs: Sequence[Rung]
    waiting: Sequence[Rung]
    tell: Tell
    began: float = field(default_factory=time.monotonic)
    last: float = 0.0

    def __post_init__(self) -> None:
        self.whole = sum(rung.flops for rung in self.runs)
        self.before = self.done()

    def done(self) -> float:
        return sum(rung.flops * (1 if rung.result() else rung.progress()) for rung in self.runs)

    def left(self, done: float) -> str:
        rate = (done - self.before) / (time.monotonic() - self.began)
        if done - self.before < 0.01 * self.whole:
            return "time left not known yet"
        return f"about {max(1, round((self.whole - done) / rate / 60))} min left"

    def ended(self, rung: Rung) -> None:
        row = rung.result()
        number = sum(other.result() is not None for other in self.runs)
        what = f"{rung.shape} on {rung.tokens / 1e6:.3g}M tokens"
        self.tell(
            f"run {number} of {len(self.runs)}: {what}, held-out loss {row['content_loss']:.4f} "
            f"(unigram {row['content_unigram_loss']:.2f})"
        )

    def tick(self) -> None:
        now = time.monotonic()
        if now - self.last > _SECONDS_BETWEEN:
            self.last, done = now, self.done()
            self.tell(f"ladder: {done / self.whole:.0%} of the work, {self.left(done)}")
