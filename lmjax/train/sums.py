"""checkpoints/STEP.sha256: what every file of a checkpoint holds, as `sha256sum -c` reads it.

Written once a save has landed, and checked by whoever reads the checkpoint: neither Orbax nor the
file formats below it notice a flipped bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from lmjax import paths
from lmjax.data import files

_THREADS = 4  # hashing runs outside Python's lock


def name(step: int | str) -> str:
    """Name of the file in the folder of the checkpoints."""
    return f"{step}.sha256"


def write(directory: str, step: int) -> None:
    """Writes the sums of all files of a step, whole or not at all.

    Args:
      directory: of checkpoints, local or a URL.
      step: one that is wholly there.
    """
    found = _sums(directory, _files(directory, step))
    content = "".join(f"{digest}  {file}\n" for file, digest in found).encode()
    file = paths.join(directory, name(step))
    if paths.is_remote(directory):
        paths.write_bytes(file, content)
    else:
        files.write_whole(file, content)


def problem(directory: str, step: int) -> str | None:
    """What is wrong with the files of a step; None: nothing, or there are no sums to tell."""
    content = paths.read_bytes(paths.join(directory, name(step)))
    if content is None:
        return None
    try:
        lines = [line.split("  ", 1) for line in content.decode().splitlines()]
        wanted = {file: digest for digest, file in lines}
    except ValueError:
        wanted = {}
    if not wanted or any(len(digest) != 64 for digest in wanted.values()):
        return f"{name(step)} is damaged"
    if missing := sorted(wanted.keys() - set(_files(directory, step))):
        return f"{missing[0]} is missing"
    for file, digest in _sums(directory, wanted):
        if digest != wanted[file]:
            return f"{file} is not what was saved"
    return None


def exists(directory: str, step: int) -> bool:
    """Whether there are sums of a step."""
    return paths.read_bytes(paths.join(directory, name(step))) is not None


def remove_others(directory: str, steps: Iterable[int]) -> None:
    """Deletes the sums of steps that are there no more."""
    wanted = {str(step) for step in steps}
    for file in paths.find(directory) if paths.is_remote(directory) else os.listdir(directory):
        stem, suffix = os.path.splitext(file)
        if suffix == ".sha256" and stem.isdigit() and stem not in wanted:
            paths.remove(paths.join(directory, file))


def _files(directory: str, step: int) -> list[str]:
    folder = paths.join(directory, str(step))
    below = paths.find(folder) if paths.is_remote(folder) else paths.files_below(folder)
    return [f"{step}/{file}" for file in below]


def _sums(directory: str, names: Iterable[str]) -> list[tuple[str, str]]:
    """(name, SHA-256) of files below a folder, in their order."""
    names = list(names)
    with ThreadPoolExecutor(_THREADS) as pool, paths.errors(directory):
        digests = list(pool.map(lambda file: files.sha256(paths.join(directory, file)), names))
    return list(zip(names, digests, strict=True))
