"""The folder of a run: its lock, its resolved config, and the rules of resuming.

`WORKDIR/config.json` rules a resume. It holds the resolved config, the name and SHA-256 of the
config file it came from, and every later change of a free field. The `.py` is not executed again:
it may have changed, and what a run is made of is written down.

A workdir in a bucket is a `Mirror`, a local folder whose files go up at each `sync`, and a `Lease`
in place of the file lock; only the checkpoints are written to the bucket directly.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import filelock
from etils import epath

from lmjax import confine, paths
from lmjax import fields as fields_lib
from lmjax.config import Config
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.files import writing
from lmjax.errors import UserError, reason
from lmjax.train.console import logger
from lmjax.train.lease import Lease
from lmjax.train.mirror import Mirror

_FORMAT = 1
# Old events stay where they are.
_NOT_MIRRORED = (".lock", "checkpoints/", "tensorboard/", "wandb/")


@dataclass(frozen=True)
class RunConfig:
    """What config.json holds."""

    config: Config
    source: dict[str, str] | None  # {"file": ..., "sha256": ...} of the config file
    changes: list[dict[str, Any]] = field(default_factory=list)


class Workdir:
    """Paths of one run, and the lock that keeps a second process out.

    `path` is the local folder of its files, `name` what the user calls it. Of several hosts the
    first writes the run's; each other has a folder in it, `hosts/INDEX`, and only the checkpoints
    are of all.
    """

    def __init__(self, path: epath.PathLike, host: int = 0):
        self.name = os.fspath(path)
        self._shared = self.name
        if host:
            self.name = path = paths.join(self.name, "hosts", str(host))
        self._mirror: Mirror | None = None
        if paths.is_remote(path):
            self._lock = Lease(self.name, log=logger.info)
            try:
                self._mirror = Mirror(self.name, leave_out=_NOT_MIRRORED)
            except BaseException:
                self._lock.release()
                raise
            self.path = epath.Path(self._mirror.folder)
            return
        self.path = epath.Path(path).expanduser()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            confine.check_links(self.path)
            self._lock = filelock.FileLock(str(self.path / ".lock"))
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(
                f"workdir {self.path} is in use by another process; wait for it to end, stop it, "
                "or give another --workdir"
            ) from None
        except OSError as error:
            raise UserError(
                f"workdir {self.path} cannot be written ({error.strerror or error}); "
                "give a --workdir that you may write to"
            ) from None

    @property
    def of_run(self) -> epath.PathLike:
        """Where the run's config and tokenizer are."""
        return self.path if self.name == self._shared else self._shared

    @property
    def metrics(self) -> epath.Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> epath.Path:
        return self.path / "samples.jsonl"

    @property
    def ledger(self) -> epath.Path:
        return self.path / "ledger.jsonl"

    @property
    def starts(self) -> epath.Path:
        return self.path / "starts.jsonl"

    @property
    def log(self) -> epath.Path:
        return self.path / "lmjax.log"

    @property
    def tensorboard(self) -> epath.Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> str:
        if paths.is_remote(self._shared):
            return paths.join(self._shared, "checkpoints")
        return paths.join(os.path.abspath(os.path.expanduser(self._shared)), "checkpoints")

    @property
    def signs_of_life(self) -> str:
        """Folder of a file for each host that it writes while it lives."""
        return paths.join(self._shared, "hosts")

    @property
    def tokenizer(self) -> epath.Path:
        return self.path / "tokenizer"

    def sync(self) -> None:
        """All files are in the bucket afterwards; a local workdir is where it should be.

        Raises:
          UserError: the bucket cannot be written, or another process has taken over.
        """
        if self._mirror is not None:
            self._lock.check()
            self._mirror.upload()

    def close(self) -> None:
        """Brings the last lines away and lets go of the lock."""
        try:
            self.sync()
        finally:
            if self._mirror is not None:
                self._mirror.close()
            self.unlock()

    def unlock(self) -> None:
        """Lets go of the lock and of nothing else."""
        self._lock.release()

    def keep_tokenizer(self, source: epath.PathLike, *, replace: bool = False) -> None:
        """Copies a tokenizer's folder here, so that the workdir is whole without the data."""
        if replace:
            shutil.rmtree(self.tokenizer, ignore_errors=True)
        if not self.tokenizer.exists():
            temporary = self.path / ".tokenizer.tmp"
            with writing(self.tokenizer):
                tokenizer_lib.copy(source, temporary)
                temporary.replace(self.tokenizer)

    def write(self, run: RunConfig) -> None:
        """Puts config.json in place at once."""
        write(self.path, run)


def content(run: RunConfig) -> dict[str, Any]:
    """What config.json holds of a run; `parse` reads it."""
    return {
        "format": _FORMAT,
        "source": run.source,
        "config": fields_lib.to_dict(run.config),
        "changes": run.changes,
    }


def write(folder: epath.PathLike, run: RunConfig) -> None:
    """Puts the config.json of a run in a local folder, at once."""
    temporary = epath.Path(folder) / ".config.json.tmp"
    with writing(epath.Path(folder) / "config.json"):
        temporary.write_text(json.dumps(content(run), indent=2) + "\n")
        temporary.replace(epath.Path(folder) / "config.json")


def read(path: epath.PathLike) -> RunConfig | None:
    """The run that was started in `path`, without locking it; None where there is none."""
    file = paths.join(path, "config.json")
    found = paths.read_bytes(file)
    return None if found is None else parse(found, file)


def parse(data: bytes, file: str) -> RunConfig:
    """What the bytes of a run's config.json say.

    Raises:
      UserError: they are no such thing.
    """
    try:
        raw = json.loads(data)
        if "model_type" in raw:
            raise UserError(
                f"{file} is of a model of Hugging Face transformers and no run's; make a workdir "
                "of it with tools/import_hf.py"
            )
        if raw["format"] != _FORMAT:
            raise UserError(
                f"{file} has format {raw['format']}, this lmjax reads {_FORMAT}; "
                "use the version of lmjax that wrote it"
            )
        source, changes = raw["source"], raw["changes"]
        if source is not None and not all(isinstance(source[k], str) for k in ("file", "sha256")):
            raise ValueError("its source has no name or hash")
        if not isinstance(changes, list):
            raise ValueError("its changes are no list")
        return RunConfig(fields_lib.from_dict(raw["config"]), source, changes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{file} is no run's config ({type(error).__name__}: {reason(error)}); "
            "restore it or give another --workdir"
        ) from None


def existing(path: str) -> tuple[str, RunConfig]:
    """A workdir that is only read: its path with the home folder written out, and its run.

    Raises:
      UserError: there is no run.
    """
    path = path if paths.is_remote(path) else os.path.expanduser(path)
    run = read(path)
    if run is None:
        raise UserError(f"workdir {path} holds no run; train one there first, or check the path")
    return path, run


def resume(
    run: RunConfig, source: dict[str, str] | None, overrides: Mapping[str, Any]
) -> RunConfig:
    """The run with what the command line asks for, where that may change.

    Args:
      run: from config.json.
      source: name and hash of the config file on the command line; None: none was given.
      overrides: dotted fields set on the command line.

    Raises:
      UserError: another config file, or a change of a fixed field; both values are named.
    """
    if source is not None and source["sha256"] != (run.source or {}).get("sha256"):
        was = run.source["file"] if run.source else "no file"
        raise UserError(
            f"this workdir was started from {was}, and {source['file']} is not the same file; "
            "give another --workdir, or leave out --config to go on with the run that is here"
        )
    is_free = fields_lib.field_names()
    current = {name: value for name, value, _ in fields_lib.leaves(run.config)}
    wanted = fields_lib.replace(run.config, overrides)
    asked = {name: value for name, value, _ in fields_lib.leaves(wanted)}
    changes = []
    for name in overrides:
        old, new = current[name], asked[name]
        if old == new:
            continue
        if not is_free[name]:
            raise UserError(
                f"config.{name} belongs to the recipe of this run: it was started with {old!r}, "
                f"the command line says {new!r}; leave it out, or give another --workdir"
            )
        changes.append({"field": name, "from": old, "to": new})
    names = [" ".join(c.data.source_names) or "(one text)" for c in (run.config, wanted)]
    if names[0] != names[1]:
        raise UserError(
            "the names of config.data.sources belong to the recipe of this run: it was started "
            f"with {names[0]}, the command line says {names[1]}; keep the names and their order, "
            "or give another --workdir"
        )
    return RunConfig(wanted, run.source, run.changes + changes)
