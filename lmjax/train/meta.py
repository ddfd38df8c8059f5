"""The JSON part of a checkpoint: what is in each, and reading it as a file, without the rest."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from typing import Any

from etils import epath

from lmjax import paths

_FILE = "meta/metadata"  # where Orbax's handler of JSON puts it


def versions() -> dict[str, str]:
    """Versions of what decides about numbers."""
    names = ("lmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"python": platform.python_version()}


def described(step: int, prng: str, meta: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of `step` says: its format, JAX's `prng`, versions, and `meta`."""
    return {
        "format": 1,
        "step": step,
        "prng": prng,
        "versions": versions(),
        **meta,
    }


def newest(workdir: str) -> dict[str, Any]:
    """That of the newest checkpoint of a workdir where it can be read; empty: there is none.

    Args:
      workdir: local or a URL; a run may be writing there.
    """
    folder = paths.join(workdir, "checkpoints")
    for step in sorted(_steps(folder), reverse=True):
        content = paths.read_bytes(paths.join(folder, str(step), _FILE))
        try:
            found = json.loads(content or b"")
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def _steps(folder: str) -> list[int]:
    with paths.errors(folder):
        try:
            return [int(path.name) for path in epath.Path(folder).iterdir() if path.name.isdigit()]
        except (FileNotFoundError, NotADirectoryError):
            return []
