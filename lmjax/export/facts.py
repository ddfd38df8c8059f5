"""What is known of a run from its own files; a model card says nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmjax import paths
from lmjax.config import Config
from lmjax.data import cache, store
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.files import BUNDLED
from lmjax.train import metrics, workdir
from lmjax.train.workdir import RunConfig


@dataclass(frozen=True)
class Text:
    """A text that a run was trained on, the only one or one of a mixture.

    Attributes:
      name: in the mixture; else empty.
      sha256: of the store's manifest; None: not recorded.
      train, held_out: the manifest's entries of the two splits; None: no store on this machine is
        the one that the checkpoint names, or nothing of this text alone is held out.
      num_inputs: files of text that the store was made of.
      share: of the rows in the mixture; None: not recorded.
    """

    name: str
    sha256: str | None
    train: dict[str, Any] | None
    held_out: dict[str, Any] | None
    num_inputs: int | None
    share: float | None


@dataclass(frozen=True)
class Facts:
    """A run up to one of its checkpoints.

    Attributes:
      name: the workdir's base name.
      run: its config.json.
      step: of the checkpoint.
      meta: the checkpoint's JSON part.
      rows: of metrics.jsonl, none beyond the step.
      tokenizer: its config file.
      train_text, eval_text: amounts of the text trained on and held out, as in a manifest's
        entries of the two splits; None: not known here.
      num_inputs: files of text that the stores of the training text were made of.
      ledgers: of the curations that the texts are from, by their names in the mixture; that of an
        only text has an empty name.
      sources: the texts of a mixture.
    """

    name: str
    run: RunConfig
    step: int
    meta: dict[str, Any]
    rows: list[dict[str, Any]]
    tokenizer: dict[str, Any]
    train_text: dict[str, Any] | None
    eval_text: dict[str, Any] | None
    num_inputs: int | None
    ledgers: dict[str, Any]
    sources: tuple[Text, ...] = ()

    @property
    def config(self) -> Config:
        return self.run.config

    @property
    def imported(self) -> dict[str, str] | None:
        """model_type and config_sha256 of the published model that the run began with."""
        source = self.run.source or {}
        if "model_type" in source:
            return {"model_type": source["model_type"], "config_sha256": source["sha256"]}
        return self.meta.get("imported")

    @property
    def ledger(self) -> dict[str, int]:
        """What the ledgers sum up, or all their numbers, by dotted name."""
        return {
            f"{name}.{key}" if name else key: number
            for name, content in self.ledgers.items()
            for key, number in _counts(content.get("summary", content))
        }

    @property
    def is_trained(self) -> bool:
        """Whether lmjax took a step; an import is a checkpoint of step 0."""
        return self.step > 0

    def last(self, split: str) -> dict[str, Any] | None:
        """The newest row of "train" or "eval"."""
        return next((row for row in reversed(self.rows) if row["split"] == split), None)

    @property
    def seconds(self) -> float:
        """Time in training steps, from the rows' tokens and rates.

        Compilation, evaluation and what comes after the last row are not in it.
        """
        seconds, before = 0.0, 0
        for row in self.rows:
            if row["split"] == "train" and row.get("tokens_per_second"):
                seconds += (row["tokens"] - before) / row["tokens_per_second"]
                before = row["tokens"]
        return seconds


def gather(path: str, step: int, meta: dict[str, Any]) -> Facts:
    """Reads what the files of a workdir say about the checkpoint of a step.

    Args:
      path: the workdir, local or a URL; there is a run in it.
      step: of the checkpoint.
      meta: the checkpoint's JSON part.
    """
    run = workdir.read(path)
    rows = [row for row in metrics.read(paths.join(path, "metrics.jsonl")) if row["step"] <= step]
    names = run.config.data.source_names
    texts = [_text(run.config, meta, name) for name in names or ("",)]
    held_out = _sum(text.held_out for text in texts)
    if held_out is None and (manifest := _manifest(run.config, meta.get("eval_data_sha256"))):
        held_out = manifest["splits"].get("train")  # of `data.eval_path` all is held out
    name = base_name(path if paths.is_remote(path) else os.path.abspath(path))
    return Facts(
        name=name,
        run=run,
        step=step,
        meta=meta,
        rows=rows,
        tokenizer=tokenizer_lib.load(paths.join(path, "tokenizer")).config,
        train_text=_sum(text.train for text in texts),
        eval_text=held_out,
        num_inputs=sum(text.num_inputs or 0 for text in texts) or None,
        ledgers={
            name: content
            for name, path in zip(names or ("",), run.config.data.paths, strict=True)
            if (content := _ledger(path, _folder(run.config, meta, name))) is not None
        },
        sources=tuple(texts) if names else (),
    )


def _text(config: Config, meta: dict[str, Any], name: str) -> Text:
    """A text of the run whose checkpoint has this JSON part."""
    train, held_out = (
        meta.get(f"{field}/{name}" if name else field)
        for field in ("data_sha256", "eval_data_sha256")
    )
    manifest = _manifest(config, train)
    splits = manifest["splits"] if manifest else {}
    return Text(
        name,
        train,
        splits.get("train"),
        splits.get("eval") if train == held_out else None,
        manifest and len(manifest["inputs"]),
        meta.get("shares", {}).get(name),
    )


def _sum(amounts: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Amounts of several splits together; None unless all are known."""
    amounts = list(amounts)
    if None in amounts:
        return None
    names = ("num_documents", "num_tokens", "num_bytes")
    return {name: sum(amount[name] for amount in amounts) for name in names}


def base_name(path: str) -> str:
    """The last part of a path, without the machine's folders."""
    return os.path.basename(path.rstrip("/")) or path


def base_names(path: str) -> str:
    """The same for a path of text, which may be several with commas between them."""
    return ",".join(base_name(part.strip()) for part in path.split(","))


def _manifest(config: Config, sha256: str | None) -> dict[str, Any] | None:
    """The manifest with this hash, where its store is on this machine."""
    folder = _store(config, sha256)
    return None if folder is None else store.read_manifest(folder)[0]


def _store(config: Config, sha256: str | None) -> str | None:
    data = config.data
    folders = [path for path in (*data.paths, data.eval_path) if path is not None]
    return cache.find_store(sha256, folders, data.cache_dir)


def _folder(config: Config, meta: dict[str, Any], name: str) -> str | None:
    """Of the store of a text, where it is on this machine."""
    return _store(config, meta.get(f"data_sha256/{name}" if name else "data_sha256"))


def _ledger(path: str, folder: str | None = None) -> dict[str, Any] | None:
    """A ledger in the store's folder, or beside the text."""
    folders = [] if folder is None else [folder]
    if not paths.is_remote(path) and not path.startswith(BUNDLED):
        path = os.path.expanduser(path)
        folders += [path, os.path.dirname(path)]
    for folder in folders:
        file = Path(folder) / store.LEDGER
        try:
            content = json.loads(file.read_bytes())
            list(_counts(content))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            return content
    return None


def _counts(content: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _counts(value, f"{prefix}.{name}" if prefix else str(name))
    elif type(content) is int:
        yield prefix, content
