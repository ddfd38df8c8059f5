"""A campaign of faults: one run that is killed over and over, beside one that nothing disturbs.

Each run is the real `python -m lmjax.main` in a process of its own, started again by the same
command whenever it has ended. What came of both is compared bit by bit: every array of the last
checkpoint, every row of metrics.jsonl but its timings, and the ledger of the rows that each step
was trained on.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lmjax import faults
from lmjax.errors import UserError
from lmjax.exit_codes import PREEMPTED
from lmjax.train import metrics

_TIMEOUT = 600.0  # seconds that a process may take
_EVERY = 4  # steps between saves
_EVAL_EVERY = 6
# A network of milliseconds a step on real text: what is tested is what happens around the steps.
_FIELDS = {
    "model.preset": None,
    "model.hidden_size": 32,
    "model.num_layers": 2,
    "model.num_heads": 2,
    "model.head_dim": 16,
    "model.mlp_size": 128,
    "tokenizer.vocab_size": 600,
    "data.path": "bundled:corpus_small",
    "data.seq_len": 32,
    "data.eval_fraction": 0.1,
    "train.global_batch_size": 8,
    "optimizer.learning_rate": 1e-2,
    "schedule.warmup_steps": 4,
    "checkpoint.every": _EVERY,
    "eval.every": _EVAL_EVERY,
    "eval.num_batches": 2,
    "log.every": 3,
    "log.ledger": True,
}


@dataclass(frozen=True)
class End:
    """How one process of the disturbed run ended.

    Attributes:
      fault: what was asked for.
      code: exit code; minus the number of a signal that killed it.
      seconds: from the signal to the end; None where the signal does not let a process end itself.
      start: the step it had gone on from.
    """

    fault: str
    code: int
    seconds: float | None
    start: int


@dataclass(frozen=True)
class Outcome:
    """What came of a campaign on one variant.

    Attributes:
      variant: name of the config.
      ends: of the processes, without the last, which ended the run.
      resumed: of them, after how many the same command went on.
      ulps: largest difference of any number of the last state, in units in the last place.
      rows: metrics rows of the undisturbed run; differing_rows: of them not found alike.
      steps: of the ledger; differing_steps: whose rows were others, or seen twice or never.
      seconds: that all of it took.
    """

    variant: str
    ends: list[End]
    resumed: int
    ulps: int
    rows: int
    differing_rows: int
    steps: int
    differing_steps: int
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether nothing was lost, repeated or changed."""
        same = self.ulps == self.differing_rows == self.differing_steps == 0
        return same and self.resumed == len(self.ends)

    @property
    def slowest(self) -> float | None:
        """Seconds of the slowest orderly end."""
        return max((end.seconds for end in self.ends if end.seconds is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self) | {"exact": self.exact, "slowest": self.slowest}

    def points(self) -> Counter[str]:
        """How many faults of each kind there were, without their steps and delays."""
        return Counter(re.sub(r"[:+].*", "", end.fault.split(",")[0]) for end in self.ends)


def kills(number: int, in_saves: int, seed: int) -> list[Callable[[int, random.Random], str]]:
    """Faults that kill: `number` right after a save has landed, `in_saves` while one is written."""

    def after_save(step: int, rng: random.Random) -> str:
        return f"kill@saved:{step}"

    def in_save(step: int, rng: random.Random) -> str:
        point, delay = rng.choice([("saving", rng.uniform(0, 0.06)), ("landed", 0.0)])
        return f"kill@{point}:{step}" + f"+{delay:.3f}" * (delay > 0)

    made = [after_save] * number + [in_save] * in_saves
    random.Random(seed).shuffle(made)
    return made


def terms(number: int) -> list[Callable[[int, random.Random], str]]:
    """Faults that ask to stop: within steps, evaluations, waits for data, and compilation."""
    kinds = [
        lambda step, rng: f"term@step:{step + rng.randrange(_EVERY)}",
        lambda step, rng: f"term@evaluation:{-(-step // _EVAL_EVERY) * _EVAL_EVERY}",
        lambda step, rng: f"term@data:{step}+0.3,hang@data:{step}",
        lambda step, rng: f"term@compile+{rng.uniform(0.01, 1):.2f}",
    ]
    return [kinds[i % len(kinds)] for i in range(number)]


@dataclass
class Campaign:
    """A campaign on one variant.

    Attributes:
      config: a config file.
      folder: for all that the runs write.
      asked: makers of faults, in their order: (a step that is to come and will be saved, noise)
        -> what `LMJAX_FAULTS` is to say.
      seed: of the noise.
      say: told what happens, line by line.
    """

    config: Path
    folder: Path
    asked: Sequence[Callable[[int, random.Random], str]]
    seed: int
    say: Callable[[str], None] = lambda line: None
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    @property
    def whole(self) -> Path:
        """Workdir of the run that nothing disturbs."""
        return self.folder / "whole"

    @property
    def _num_steps(self) -> int:
        return _EVERY * (3 * len(self.asked) + 3)

    def __call__(self) -> Outcome:
        """Runs both and compares them.

        Raises:
          UserError: a process ended as it should not.
        """
        began = time.monotonic()
        whole, disturbed = self.whole, self.folder / "disturbed"
        self._must(self._process(whole, ""), 0)
        ends = list(self._disturb(disturbed))
        last = self._process(disturbed, "")
        self._must(last, 0)
        starts = [end.start for end in ends[1:]] + [last.start]
        resumed = sum(a <= b for a, b in zip([e.start for e in ends], starts, strict=True))
        ours, theirs = (_rows(w / "metrics.jsonl") for w in (disturbed, whole))
        steps, wanted = (_rows(w / "ledger.jsonl") for w in (disturbed, whole))
        return Outcome(
            self.config.stem,
            ends,
            resumed,
            _ulps(*(w / "checkpoints" / str(self._num_steps) for w in (disturbed, whole))),
            len(theirs),
            _differences(ours, theirs),
            len(wanted),
            _differences(steps, wanted),
            time.monotonic() - began,
        )

    def _disturb(self, workdir: Path) -> Iterator[End]:
        step = 0
        for number, make in enumerate(self.asked, 1):
            step = max(step, _latest(workdir)) + _EVERY
            end = self._process(workdir, make(step, self._rng))
            wanted = PREEMPTED if end.fault.startswith("term") else -signal.SIGKILL
            self._must(end, wanted)
            took = "" if end.seconds is None else f" within {end.seconds:.1f} s"
            self.say(
                f"{self.config.stem} {number}/{len(self.asked)}: from step {end.start}, "
                f"{end.fault}: exit code {end.code}{took}"
            )
            yield end

    def _process(self, workdir: Path, fault: str) -> End:
        """The run in a process of its own, until it ends."""
        start = _latest(workdir)
        environment = os.environ | {
            faults.VARIABLE: fault,
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "lmjax.main", *self._arguments(workdir)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            _, self._said = process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise UserError(f"{workdir}: hangs with {fault or 'no fault'}") from None
        ended, seconds = time.time(), None
        if fault.startswith("term"):
            sent = re.search(r"^fault: term\S+ ([\d.]+)$", self._said, re.MULTILINE)
            delay = re.search(r"\+([\d.]+)", fault)
            if sent:
                seconds = ended - float(sent[1]) - (float(delay[1]) if delay else 0.0)
        return End(fault, process.returncode, seconds, start)

    def _arguments(self, workdir: Path) -> list[str]:
        fields = _FIELDS | {
            "data.cache_dir": self.folder / "cache",
            "train.num_steps": self._num_steps,
        }
        overrides = [f"--config.{name}={value}" for name, value in fields.items()]
        return [f"--config={self.config}", f"--workdir={workdir}", f"--{faults.FLAG}", *overrides]

    def _must(self, end: End, code: int) -> None:
        if end.code != code:
            said = (self._said.strip().splitlines() or ["nothing"])[-1]
            raise UserError(
                f"{self.config.stem} with {end.fault or 'no fault'} ended with {end.code}, not "
                f"{code}: {said}"
            )


def _latest(workdir: Path) -> int:
    """The newest step that is saved, 0 where there is none."""
    found = (workdir / "checkpoints").glob("*")
    return max((int(path.name) for path in found if path.name.isdigit()), default=0)


def _rows(file: Path) -> list[dict[str, Any]]:
    """Rows of a file of metrics or of the ledger, without what a clock decides."""
    return [
        {name: value for name, value in row.items() if name not in metrics.TIMINGS}
        for row in metrics.read(file)
    ]


def _differences(mine: list[dict], theirs: list[dict]) -> int:
    """Rows that are not the same at the same place, one missing or too many included."""
    same = sum(a == b for a, b in zip(mine, theirs, strict=False))
    return max(len(mine), len(theirs)) - same


def _ulps(mine: Path, theirs: Path) -> int:
    """Largest difference between two saved states, in units in the last place."""
    states = []
    for folder in (mine, theirs):
        with ocp.StandardCheckpointer() as reader:
            state = reader.restore((folder / "state").absolute())
            leaves = jax.tree_util.tree_leaves_with_path(state)
            states.append({jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})
    if states[0].keys() != states[1].keys():
        raise UserError(f"{mine} and {theirs} hold different arrays")
    return max(_distance(value, states[1][name]) for name, value in states[0].items())


def _distance(a: np.ndarray, b: np.ndarray) -> int:
    """In steps from one representable number to the next; of integers, their difference."""
    ordered = []
    for array in (a, b):
        if array.dtype == np.float32:
            bits = array.view(np.int32).astype(np.int64)
            array = np.where(bits < 0, -(2**31) - bits, bits)
        ordered.append(array.astype(np.int64))
    return int(np.abs(ordered[0] - ordered[1]).max(initial=0))
