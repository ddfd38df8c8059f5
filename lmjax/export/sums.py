"""SHA256SUMS of a folder, as `sha256sum -c` reads it."""

from __future__ import annotations

import os

from lmjax import paths
from lmjax.data import files

FILE = "SHA256SUMS"


def write(folder: str | os.PathLike) -> None:
    """Writes `FILE` over all other files of a local folder."""
    names = [name for name in paths.files_below(folder) if name != FILE]
    lines = [f"{files.sha256(os.path.join(folder, name))}  {name}\n" for name in names]
    files.write_whole(os.path.join(folder, FILE), "".join(lines).encode())
