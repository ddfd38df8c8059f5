"""Checkpoints in a store that Orbax cannot write to: saved to this disk, then copied there whole.

Orbax 0.12 writes to local folders and to GCS. For any other URL a save goes to the cache folder
and a thread copies it, the commit marker last: the name that Orbax gives it on GCS, with the same
meaning, so that a step without one is unfinished. A run that goes on brings the newest step back
(or, if that is damaged, one before), a reader the one it is asked for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from etils import epath

from lmjax import paths
from lmjax.data.files import writing
from lmjax.errors import UserError
from lmjax.parallel import hosts
from lmjax.train import sums
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.state import TrainState

_MARKER = "commit_success.txt"


def open_checkpoints(
    directory: str, *, keep: int, keep_period: int | None
) -> Checkpoints | CopiedCheckpoints:
    """The checkpoints of a folder or URL, written to directly where Orbax can."""
    if _is_copied(directory):
        if hosts.number() > 1:
            raise UserError(
                f"{directory}: several hosts save to a folder that all of them see, or to gs://; "
                "give such a --workdir"
            )
        return CopiedCheckpoints(directory, keep=keep, keep_period=keep_period)
    return Checkpoints(directory, keep=keep, keep_period=keep_period)


def _is_copied(directory: str) -> bool:
    return paths.is_remote(directory) and not directory.startswith("gs://")


def finished(directory: str) -> list[int]:
    """Steps of the finished checkpoints of a folder or URL, which is only looked at, ascending."""
    if _is_copied(directory):
        return sorted(_steps(directory)[0])
    if not epath.Path(directory).is_dir():
        return []
    checkpoints = Checkpoints(directory, read_only=True)
    try:
        return checkpoints.steps()
    finally:
        checkpoints.close()


@contextlib.contextmanager
def reading(directory: str, step: int | None = None) -> Iterator[tuple[Checkpoints, int]]:
    """Opens a finished checkpoint of a folder or URL; a run may go on writing there.

    Yields:
      (checkpoints to restore it from, `step` or, where that is None, the newest step).

    Raises:
      UserError: there is none, or not that one.
    """
    with contextlib.ExitStack() as stack:
        folder = directory
        if _is_copied(directory):
            step = _choose(directory, sorted(_steps(directory)[0]), step)
            folder = stack.enter_context(_downloaded(directory, step))
        checkpoints = Checkpoints(folder, name=directory, read_only=True)
        stack.callback(checkpoints.close)
        yield checkpoints, _choose(directory, checkpoints.steps(), step)


def _choose(directory: str, steps: Sequence[int], step: int | None) -> int:
    if not steps:
        raise UserError(f"{directory} holds no checkpoint; train first")
    if step is None:
        return steps[-1]
    if step not in steps:
        there = ", ".join(map(str, steps))
        raise UserError(
            f"{directory} holds no checkpoint of step {step}; there is {there}: take one"
        )
    return step


@contextlib.contextmanager
def _downloaded(url: str, step: int) -> Iterator[str]:
    """A local folder with one step of `url`, for as long as the block lasts."""
    cache = os.path.expanduser(paths.CACHE_DIR)
    with writing(cache):
        os.makedirs(cache, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="checkpoint_", dir=cache) as folder:
        _download(url, step, folder)
        yield folder


def _download(url: str, step: int, folder: str) -> None:
    source = paths.join(url, str(step))
    names = [f"{step}/{name}" for name in paths.find(source)]
    if sums.exists(url, step):
        names.append(sums.name(step))
    paths.download(url, folder, names)


class CopiedCheckpoints:
    """What `Checkpoints` is, for one process and any URL."""

    def __init__(self, url: str, *, keep: int, keep_period: int | None = None):
        self._url, self._keep, self._period = url, keep, keep_period
        self._folder = paths.local_folder(url, "checkpoints")
        shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
        self._thread = ThreadPoolExecutor(1)
        self._copying: Future | None = None
        try:
            self._steps, unfinished = _steps(url)
            for step in unfinished:  # a killed run was about to write or to delete it
                paths.remove(self._url_of(step))
                paths.remove(self._sums_of(step))
            self._local = self._open()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _open(self) -> Checkpoints:
        return Checkpoints(self._folder, keep=1, name=self._url)

    @property
    def name(self) -> str:
        """Where they are."""
        return self._url

    def steps(self) -> list[int]:
        """The steps that are wholly in the store, ascending; waits for the one on its way there."""
        self.wait()
        return sorted(self._steps)

    def latest(self) -> int | None:
        """The newest of them."""
        return max(self.steps(), default=None)

    def problem(self, step: int) -> str | None:
        """As `Checkpoints.problem`, of the copy that it was brought here as."""
        return self._brought(step).problem(step)

    def put_aside(self, step: int) -> str:
        """Renames a step in the store, so that it is none any more; returns the new name."""
        new, local = f"damaged_{step}_{time.time_ns()}", self._brought(step)
        paths.remove(paths.join(self._url_of(step), _MARKER))
        paths.move(self._url_of(step), paths.join(self._url, new))
        paths.move(self._sums_of(step), paths.join(self._url, sums.name(new)))
        self._steps.discard(step)
        local.put_aside(step)
        return new

    def seal(self, step: int) -> None:
        """Writes the sums of a sound step that has none."""
        if not sums.exists(self._url, step):
            self._brought(step).seal(step)
            self._upload_sums(step)

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        """Copies the state off the device, then writes and uploads it while training goes on."""
        self.wait()
        if step not in self._local.steps():  # else the copying failed
            self._local.save(step, state, meta)
        self._copying = self._thread.submit(self._copy, step)

    def failed(self) -> bool:
        """Whether the last save has failed; `wait` raises why."""
        copying = self._copying
        return copying is not None and copying.done() and copying.exception() is not None

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        return self._brought(step).meta(step)

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """As `Checkpoints.restore`."""
        return self._brought(step).restore(step, abstract, shardings)

    def restore_params(self, step: int, abstract: Any, shardings: Any) -> Any:
        """As `Checkpoints.restore_params`."""
        return self._brought(step).restore_params(step, abstract, shardings)

    def _brought(self, step: int) -> Checkpoints:
        """The local checkpoints, `step` of the store among them."""
        if step not in self._local.steps():
            self._local.close()
            _download(self._url, step, self._folder)
            self._local = self._open()
        return self._local

    def wait(self) -> None:
        """Returns when nothing is being written or copied any more; raises what went wrong."""
        copying, self._copying = self._copying, None
        if copying is not None:
            copying.result()

    def close(self) -> None:
        """Finishes and deletes the local copies."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._local.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _copy(self, step: int) -> None:
        self._local.wait()
        folder, url = self._folder_of(step), self._url_of(step)
        paths.upload(folder, url, [name for name in paths.files_below(folder) if name != _MARKER])
        self._upload_sums(step)
        marker = paths.read_bytes(os.path.join(folder, _MARKER))
        paths.write_bytes(paths.join(url, _MARKER), marker or b"")
        self._steps.add(step)
        for old in sorted(self._steps)[: -self._keep]:
            if self._period is None or old % self._period:
                self._steps.remove(old)
                paths.remove(paths.join(self._url_of(old), _MARKER))
                paths.remove(self._url_of(old))
                paths.remove(self._sums_of(old))

    def _upload_sums(self, step: int) -> None:
        paths.upload(self._folder, self._url, [sums.name(step)])

    def _sums_of(self, step: int) -> str:
        return paths.join(self._url, sums.name(step))

    def _url_of(self, step: int) -> str:
        return paths.join(self._url, str(step))

    def _folder_of(self, step: int) -> str:
        return os.path.join(self._folder, str(step))


def _steps(url: str) -> tuple[set[int], set[int]]:
    """Steps at `url` with and without a commit marker."""
    names = [name.split("/") for name in paths.find(url)]
    found = {int(name[0]) for name in names if name[0].isdigit()}
    finished = {step for step in found if [str(step), _MARKER] in names}
    return finished, found - finished
