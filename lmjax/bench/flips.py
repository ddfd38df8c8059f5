"""Single bits flipped in the files of a checkpoint, files cut, files gone: what a restart does.

Each damage is done to a copy of a run's checkpoints, which is then opened as a run that goes on
opens it. The newest checkpoint is the damaged one; the one before it is whole.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from lmjax import paths
from lmjax.errors import UserError
from lmjax.train import workdir
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.console import logger
from lmjax.train.restart import Restart
from lmjax.train.setup import Program, make_program
from lmjax.train.state import TrainState

WENT_BACK = "told, and went back one step"
EQUAL = "restored, equal to what was saved"
SILENT = "restored other numbers silently"
BEGAN_ANEW = "began at step 0"
GAVE_UP = "gave up with an error"

# (file, its content) -> what is done to it in words, and the content then; None: it is gone.
Damage = tuple[str, str, Callable[[bytes], bytes | None]]


def campaign(path: str, scratch: Path, number: int, seed: int) -> dict[str, dict[str, int]]:
    """What came of `number` flipped bits, and of every file cut and deleted, how often each.

    Args:
      path: the workdir of a run with at least two checkpoints; it is only read.
      scratch: a folder that is not there yet, for the copy that is damaged.
      number, seed: of the bits.
    """
    damages = Damages(path, scratch)
    made = {
        "bits flipped": bits(damages.files, number, seed),
        "files cut or gone": cuts(damages.files),
    }
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells of every damage
    try:
        return {kind: dict(Counter(map(damages, asked))) for kind, asked in made.items()}
    finally:
        logger.setLevel(level)


def is_bad(came: dict[str, dict[str, int]]) -> bool:
    """Whether damage was not noticed, or threw a run back to its start."""
    return any(SILENT in counts or BEGAN_ANEW in counts for counts in came.values())


def bits(files: dict[str, int], number: int, seed: int) -> Iterator[Damage]:
    """One random bit of all files, `number` times; `files` says how many bytes each has."""
    rng = random.Random(seed)
    for _ in range(number):
        (file,) = rng.choices(list(files), weights=list(files.values()))
        place, bit = rng.randrange(files[file]), rng.randrange(8)

        def flip(content: bytes, place: int = place, bit: int = bit) -> bytes:
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            return bytes(changed)

        yield file, f"bit {bit} of byte {place}", flip


def cuts(files: dict[str, int]) -> Iterator[Damage]:
    """Every file once cut to half of its length, and once deleted."""
    for file in files:
        yield file, "cut", lambda content: content[: len(content) // 2]
        yield file, "deleted", lambda content: None


class Damages:
    """Does damage to the newest checkpoint of a run, which itself is only read."""

    def __init__(self, path: str, scratch: Path):
        """Restores the newest checkpoint of the workdir `path`; copies go to `scratch`.

        Raises:
          UserError: there is no run, or it has fewer than two checkpoints.
        """
        run = workdir.read(path)
        self._whole, self._copy = Path(path) / "checkpoints", scratch / "checkpoints"
        steps = sorted(int(p.name) for p in self._whole.glob("*") if p.name.isdigit())
        if run is None or len(steps) < 2:
            raise UserError(f"workdir {path} holds no run with two checkpoints; train one there")
        self._program, (self._before, newest) = make_program(run.config), steps[-2:]
        names = [f"{newest}/{name}" for name in paths.files_below(self._whole / str(newest))]
        names.append(f"{newest}.sha256")
        self.files = {name: os.path.getsize(self._whole / name) for name in names}
        shutil.copytree(self._whole, self._copy)
        self._wanted = _restart(self._copy, self._program)

    def __call__(self, damage: Damage) -> str:
        """What a restart does about it; the copy is whole again afterwards."""
        file, _, change = damage
        content = (self._whole / file).read_bytes()
        (self._copy / file).unlink()
        if (changed := change(content)) is not None:
            (self._copy / file).write_bytes(changed)
        try:
            return self._judge()
        finally:
            (self._copy / file).write_bytes(content)

    def _judge(self) -> str:
        try:
            found = _restart(self._copy, self._program)
        except UserError:
            return GAVE_UP
        if found is None:
            return BEGAN_ANEW
        if found[1] == self._before:
            return WENT_BACK
        mine, theirs = (jax.tree.leaves(state) for state, _ in (found, self._wanted))
        same = (np.array_equal(_bits(a), _bits(b)) for a, b in zip(mine, theirs, strict=True))
        return EQUAL if all(same) else SILENT


def _restart(folder: Path, program: Program) -> tuple[TrainState, int] | None:
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        return Restart(checkpoints).state(program)
    finally:
        checkpoints.close()


def _bits(array: jax.Array) -> np.ndarray:
    return np.asarray(array).reshape(-1).view(np.uint8)
