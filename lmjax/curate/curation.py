"""Raw text -> a folder of kept and dropped documents and its ledger."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import rich.console
import rich.progress

from lmjax import paths
from lmjax.curate import blocking, cleaning, ledger, reading, stages
from lmjax.curate.recipe import Recipe
from lmjax.data import files as files_lib
from lmjax.data import progress as progress_lib
from lmjax.errors import UserError

_JOB = "job.json"
_SECONDS = 0.5  # between looks at how far it is
_SECONDS_BETWEEN_LINES = 10.0


def curate(
    files: Sequence[str],
    output: str,
    recipe: Recipe,
    *,
    executor: str = "local",
    workers: int | None = None,
    executor_settings: dict[str, Any] | None = None,
    progress: Progress = lambda stage, done, tasks, characters: None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any] | None:
    """Curates files, goes on with what was interrupted, or says what a finished one came to.

    Args:
      files: as `find_files` gives them.
      output: local folder.
      recipe: what is done.
      executor: of `stages.EXECUTORS`.
      workers: tasks at a time; None: one per core (on SLURM: all).
      executor_settings: further ones of that executor.
      progress: told how far it is.
      log: gets lines worth telling the user.

    Returns:
      The ledger; None: the work is queued on SLURM.

    Raises:
      UserError: an input cannot be read, a list or model is none, or the folder holds another
        curation.
    """
    output = os.path.abspath(os.path.expanduser(output))
    shards = reading.shards(files)
    sizes = [paths.size(file) for file in files]
    head = {"key": "", "inputs": ledger.inputs(files_lib.short_names(files), sizes)}
    head["key"] = recipe.key([(entry["name"], entry["bytes"]) for entry in head["inputs"]])
    with files_lib.writing(output):
        os.makedirs(output, exist_ok=True)
    with files_lib.locked(os.path.join(output, ".curate"), f"curates into {output}", log):
        found = ledger.read(output)
        if found is not None:
            if found["key"] != head["key"]:
                raise UserError(
                    f"{output}: holds another curation, of other text or with another recipe; "
                    "choose another --output or delete it"
                )
            ledger.clear(output)
            return found
        _check(recipe)
        _begin(output, head["key"])
        stages.quiet()
        made = None
        workers = workers or (-1 if executor == "slurm" else os.cpu_count() or 1)
        with stages.cluster(executor):
            for stage in stages.build(recipe, shards, output, head):
                more = executor_settings or {}
                made = stages.executor(executor, stage, output, workers, made, **more)
                if executor != "slurm":
                    with _told(stage, output, progress):
                        made.run()
                    _require(stage, output)
        if executor == "slurm":
            made.run()  # and all before it
            return None
        ledger.clear(output)
        return ledger.read(output)


def _begin(output: str, key: str) -> None:
    """Notes which curation the folder is of."""
    work = os.path.join(output, "work")
    path, begun = os.path.join(work, _JOB), None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(path, "rb") as stream:
        begun = json.load(stream)["key"]
    if begun == key:
        return
    if begun is not None and not os.path.exists(os.path.join(work, "seals")):
        ledger.clear(output)  # a mistake ended it before anything was done
    others = [name for name in sorted(os.listdir(output)) if not name.startswith(".")]
    if others:
        raise UserError(
            f"{output}: holds {others[0]!r}, and no unfinished curation of this text by this "
            "recipe; choose another --output or delete it"
        )
    os.makedirs(os.path.dirname(path))
    files_lib.write_whole(path, json.dumps({"key": key}).encode())


def _check(recipe: Recipe) -> None:
    """Finds mistakes before workers do."""
    for judge in cleaning.judges(recipe):
        if isinstance(judge, blocking.Classifier | blocking.Decontaminate):
            judge.check()


def _require(stage: stages.Stage, output: str) -> None:
    if stage.name == "finish":
        return
    missing = [r for r in range(stage.tasks) if cleaning.sealed(output, stage.name, r) is None]
    if missing:
        raise UserError(
            f"{output}: task {missing[0]} of {stage.name} is not done; give the same command again"
        )


@contextlib.contextmanager
def _told(stage: stages.Stage, output: str, progress: Progress) -> Iterator[None]:
    """Tells how many tasks are done while the executor is at work."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_SECONDS):
            done = sum(
                os.path.exists(cleaning.seal_path(output, stage.name, rank))
                for rank in range(stage.tasks)
            )
            progress(stage.name, done, stage.tasks, _read(output))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    progress(stage.name, stage.tasks, stage.tasks, _read(output))


def _read(output: str) -> int:
    """Characters that tasks say they have read."""
    folder, done = os.path.join(output, "work", "progress"), 0
    with contextlib.suppress(OSError, ValueError):
        for name in os.listdir(folder):
            with open(os.path.join(folder, name)) as stream:
                done += int(stream.read() or 0)
    return done


class Progress(Protocol):
    """Told (stage, tasks done, tasks, characters read so far)."""

    def __call__(self, stage: str, done: int, tasks: int, characters: int) -> None: ...


@contextlib.contextmanager
def shown(log: Callable[[str], None]) -> Iterator[Progress]:
    """Yields the callback that `curate` takes: a bar on a terminal, else a line now and then."""
    console = rich.console.Console(stderr=True)
    if not progress_lib.is_live(console):
        yield _Lines(log)
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.completed}/{task.total} tasks"),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("")

        def show(stage: str, done: int, tasks: int, characters: int) -> None:
            bar.update(task, completed=done, total=tasks, description=_said(stage, characters))

        yield show


def _said(stage: str, characters: int) -> str:
    what = stage.replace("_", " ")
    return f"{what}: {characters / 1e6:.1f}M characters" if stage == "clean" else what


class _Lines:
    """A line for each stage, and every ten seconds of one."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log, self._stage, self._last = log, "", time.monotonic()

    def __call__(self, stage: str, done: int, tasks: int, characters: int) -> None:
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and (stage == self._stage or done < tasks):
            return
        self._stage, self._last = stage, now
        self._log(f"{_said(stage, characters)}, {done}/{tasks} tasks")
