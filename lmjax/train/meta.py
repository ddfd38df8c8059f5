"""The JSON part of a checkpoint, read as a file: for those who need nothing else of it."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from lmjax import paths

_FILE = "meta/metadata"  # where Orbax's handler of JSON puts it


def newest(workdir: str) -> dict[str, Any]:
    """That of a workdir's newest checkpoint that has a sound one; empty: none has.

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
