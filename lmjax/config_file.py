"""A config file, and what the command line sets -> the config of a run."""

from __future__ import annotations

import hashlib
import os
import traceback
import types
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lmjax import families, objectives, paths
from lmjax import fields as fields_lib
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.train import workdir


def read(path: str) -> bytes:
    """The content of a config file.

    Raises:
      UserError: there is none.
    """
    content = paths.read_bytes(path)
    if content is None:
        what = "is a folder" if os.path.isdir(path) else "is not there"
        raise UserError(f"config file {path} {what}; see configs/ for the ones that are")
    return content


def source(path: str) -> dict[str, str]:
    """What a run remembers of its config file: path and SHA-256."""
    return {"file": path, "sha256": hashlib.sha256(read(path)).hexdigest()}


def load(path: str) -> dict[str, Any]:
    """Runs a config file's `get_config()`, or takes the config of a run's config.json.

    Raises:
      UserError: no such file, no `get_config`, or an error inside it; no run's config.
    """
    content = read(path)
    if path.endswith(".json"):
        return fields_lib.to_dict(workdir.parse(content, path).config)
    if not path.endswith(".py"):
        raise UserError(
            f"config file {path} is neither a Python file nor a run's config.json; see configs/ "
            "for examples"
        )
    module = types.ModuleType(f"lmjax_config_{Path(path).stem}")
    module.__file__ = path
    try:
        exec(compile(content, path, "exec"), module.__dict__)
        raw = module.get_config()
        return raw.to_dict() if isinstance(raw, ConfigDict) else dict(raw)
    except Exception as error:
        if not hasattr(module, "get_config") and isinstance(error, AttributeError):
            why = "has no get_config()"
        else:
            said = error.msg if isinstance(error, SyntaxError) else error
            why = f"fails{_line_of(path, error)} with {type(error).__name__}: {said}"
        raise UserError(
            f"config file {path} {why}; mend it: it must define get_config() that returns an "
            "ml_collections.ConfigDict, see configs/"
        ) from error


def _line_of(path: str, error: Exception) -> str:
    """Where in a config file an exception arose, in words."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
    return f" at line {lines[-1]}" if lines else ""


def make(raw: dict[str, Any], overrides: dict[str, Any]) -> Config:
    """Command line over config file over the family's preset over the defaults."""
    flat = fields_lib.flatten(raw) | overrides
    for name in flat:
        fields_lib.check_name(name)
    name = flat.get("objective.name")
    if name in objectives.LABELLED and "family" not in flat:
        raise UserError(
            f"config.objective.name={name!r} needs a trained model, or its shape and tokenizer at "
            "least; set train.init_from to the workdir of its run (with train.init_weights=False "
            "for fresh weights)"
        )
    resolved = families.resolve(fields_lib.unflatten(flat))
    if isinstance(name, str) and (head := objectives.head(name)):
        resolved["model"]["head"] = head
    config = fields_lib.from_dict(resolved)
    objectives.check(config)
    return config
