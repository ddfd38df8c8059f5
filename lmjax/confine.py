"""Names and links in folders of others, which must not lead out of them.

A manifest, an index of shards and a listing of a bucket name files, and a folder may hold symbolic
links. What they lead to elsewhere would be read, copied into a workdir and from there uploaded, or
overwritten. Where a folder itself lies, and whether that is a link, is the user's own choice.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from lmjax.errors import UserError

_MAX_NAME = 255  # bytes of a name on all common file systems


def is_plain(name: object) -> bool:
    """Whether `name` is that of a file in a folder, and nothing that leads elsewhere."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not {"/", "\\"} & set(name)
        and name.isprintable()  # neither NUL nor line ends nor half a surrogate pair
        and len(name.encode()) <= _MAX_NAME
    )


def check_below(name: str, place: str) -> None:
    """Raises UserError unless `name` is a relative path of plain names; `place`: who says it."""
    if not all(map(is_plain, name.split("/"))):
        raise UserError(
            f"{place}: names a file elsewhere ({name[:200]!r}); do not use what comes from there"
        )


def inside(folder: str | os.PathLike, name: str) -> Path:
    """The file `name` of a local folder; a link in its place may lead to another file of it.

    The folder of a snapshot in the Hub's cache has links to the blobs beside all snapshots.

    Raises:
      UserError: it leads elsewhere.
    """
    folder = Path(folder)
    file = folder / PurePosixPath(name)
    root = folder.resolve()
    roots = [root]
    if root.parent.name == "snapshots":
        roots.append(root.parent.parent / "blobs")
    target = _resolved(file)
    if not any(target.is_relative_to(root) for root in roots):
        raise UserError(
            f"{file}: is a link to {target}, outside of that folder; put the file itself there"
        )
    return file


def check_links(folder: str | os.PathLike) -> None:
    """Raises UserError if a link below a local folder, where things will be written, leads out."""
    root = Path(folder).resolve()
    for here, folders, files in os.walk(root):
        for name in (*folders, *files):
            entry = Path(here, name)
            if entry.is_symlink() and not (target := _resolved(entry)).is_relative_to(root):
                raise UserError(
                    f"{entry}: is a link to {target}, and what belongs to {folder} is written "
                    "there only; put the files themselves in its place, or link the whole folder"
                )


def _resolved(file: Path) -> Path:
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a NUL
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{file}: leads nowhere ({why}); take it away") from None
