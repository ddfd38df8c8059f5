"""A run's config as it may be shown to others: without the paths of a machine."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from lmjax import fields as fields_lib
from lmjax.config import Config, DataConfig
from lmjax.data.files import BUNDLED
from lmjax.export.facts import base_name, base_names
from lmjax.train import workdir
from lmjax.train.workdir import RunConfig

FILE = "lmjax_config.json"

# Fields that name files -> what stands for them in a command.
PLACES = {
    "data.path": "TEXT_OR_STORE",
    "data.sources": "TEXT_OR_STORE",
    "data.eval_path": "HELD_OUT_TEXT_OR_STORE",
    "tokenizer.path": "TOKENIZER",
    "train.init_from": "WORKDIR_OF_ITS_WEIGHTS",
}


def public(run: RunConfig) -> RunConfig:
    """The run with base names in place of paths, and without its changes on the way."""
    changes = {"data.cache_dir": DataConfig().cache_dir}
    for name, value in _places(run.config).items():
        if name == "data.sources":
            changes[name] = tuple((source, base_names(path)) for source, path in value)
        else:
            changes[name] = (base_names if name.startswith("data.") else base_name)(value)
    source = run.source and {**run.source, "file": base_name(run.source["file"])}
    config = fields_lib.replace(run.config, changes)
    return dataclasses.replace(run, config=config, source=source, changes=[])


def write(run: RunConfig, folder: str | os.PathLike) -> None:
    """Writes `FILE`, from which `python -m lmjax.main --config` trains the model again."""
    content = json.dumps(workdir.content(public(run)), indent=2) + "\n"
    (Path(folder) / FILE).write_text(content, encoding="utf-8")


def changes(run: RunConfig) -> list[str]:
    """What was changed on the way and by which values, where no path is among them."""
    hidden = {*PLACES, "data.cache_dir"}
    return [
        f"{change['field']} from {change['from']} to {change['to']}"
        for change in run.changes
        if change["field"] not in hidden
    ]


def command(config: Config) -> str:
    """The command line that trains it again from `FILE`."""
    flags = []
    for name, value in _places(config).items():
        if name == "data.sources":
            pairs = ",".join(f"('{source}','{PLACES[name]}')" for source, _ in value)
            flags.append(f'--config.{name}="({pairs})"')
        elif not value.startswith(BUNDLED):
            flags.append(f"--config.{name}={PLACES[name]}")
    return " ".join([f"python -m lmjax.main --config={FILE} --workdir=runs/again", *flags])


def _places(config: Config) -> dict[str, Any]:
    values = {name: value for name, value, _ in fields_lib.leaves(config)}
    return {name: values[name] for name in PLACES if values[name]}
