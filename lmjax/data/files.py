"""Which files a path means, and how their bytes are opened.

A path is a comma-separated list of files, globs and folders (searched to the bottom), or
`bundled:NAME` for a text that ships with lmjax. The answer is sorted and without repeats, so the
order of the documents depends on the names alone. Each part may be a URL of any kind that fsspec
knows (`gs://`, `s3://`, `hf://datasets/...`, `https://` for single files).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.resources
import io
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import filelock
import pyarrow as pa
from etils import epath

from lmjax import paths
from lmjax.errors import UserError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SUFFIXES = (".txt", ".txt.gz", ".txt.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
LINES = (".txt", ".jsonl")  # whatever follows the end of a line is whole records again
BUNDLED = "bundled:"
_BUFFER_BYTES = 1 << 18
_MAGIC = set("*?[")


def suffix(file: str) -> str:
    """The member of `SUFFIXES` that the name ends with; "" when there is none."""
    return next((s for s in SUFFIXES if file.lower().endswith(s)), "")


def find_files(path: str) -> tuple[str, ...]:
    """Files that `path` means, sorted.

    Args:
      path: comma-separated files, globs, folders or `bundled:NAME`.

    Raises:
      UserError: a part is missing, matches nothing, or is of no supported kind.
    """
    parts = [p.strip() for p in path.split(",") if p.strip()]
    if not parts:
        raise UserError("the path of the text is empty; name a file, a glob or a folder")
    return tuple(sorted({file for part in parts for file in _expand(part)}))


def _expand(part: str) -> list[str]:
    if part.startswith(BUNDLED):
        return [_bundled(part)]
    if paths.is_remote(part):
        return _expand_url(part)
    target = epath.Path(part).expanduser()
    if _MAGIC & set(part):
        found = _glob(target)
    elif target.is_dir():
        found = list(_walk(target))
    elif target.exists():
        if not suffix(target.name):
            raise UserError(f"{part}: not a supported kind of file; use {_names()}")
        return [os.fspath(target)]
    else:
        raise UserError(f"{part}: no such file or folder{_first_missing(target)}; check the path")
    return _supported(part, [os.fspath(p) for p in found if not p.is_dir()])


def _expand_url(url: str) -> list[str]:
    fs, root = paths.filesystem(url)
    with paths.errors(url):
        if _MAGIC & set(root):
            found = fs.glob(root)
            if not found:  # is it there at all?
                fs.info(re.split(r"/[^/]*[*?[]", root, maxsplit=1)[0])
        elif fs.info(root)["type"] == "directory":
            names = ((path, path.removeprefix(root)) for path in fs.find(root))
            found = [path for path, name in names if "/." not in f"/{name.lstrip('/')}"]
        else:
            found = [root]
    return _supported(url, [fs.unstrip_protocol(path) for path in found])


def _supported(part: str, found: list[str]) -> list[str]:
    files = [file for file in found if suffix(file)]
    if not files:
        others = sorted({os.path.splitext(file)[1] or "no suffix" for file in found})
        if ".arrayrecord" in others:
            why = "an unfinished store: run tools/prepare_data.py to its end"
            raise UserError(f"{part}: {why}, or give the text itself")
        why = f"holds or matches only {', '.join(others[:5])}" if others else "matches no file"
        raise UserError(f"{part}: {why}; supported are {_names()}")
    return files


def _walk(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if not path.name.startswith("."):
            yield from _walk(path) if path.is_dir() else [path]


def _glob(target: epath.Path) -> list[epath.Path] | list[pathlib.Path]:
    parts = target.parts
    first = next(i for i, p in enumerate(parts) if _MAGIC & set(p))
    base = epath.Path(*parts[:first]) if first else epath.Path(".")
    if not base.exists():
        raise UserError(f"{os.fspath(base)}: no such folder{_first_missing(base)}; check the path")
    local = "://" not in os.fspath(base)  # epath itself has no `**`
    return list((pathlib.Path(base) if local else base).glob("/".join(parts[first:])))


def _first_missing(target: epath.Path) -> str:
    """Names the outermost folder that is missing, where that is not the target itself."""
    missing = [p for p in reversed(target.parents) if not p.exists()]
    return f" (already {os.fspath(missing[0])} is missing)" if missing else ""


def _bundled(part: str) -> str:
    folder = importlib.resources.files("lmjax") / "corpora"
    names = sorted(f.name.removesuffix(".jsonl") for f in folder.iterdir() if ".jsonl" in f.name)
    name = part.removeprefix(BUNDLED)
    if name not in names:
        raise UserError(f"{part}: no such bundled text; there is {', '.join(names)}")
    return str(folder / f"{name}.jsonl")


def _names() -> str:
    return " ".join(SUFFIXES)


def short_names(files: Sequence[str]) -> tuple[str, ...]:
    """The files relative to the innermost folder they share: names without a machine's paths."""
    if any(paths.is_remote(file) for file in files):
        files = [f"/{f.replace('://', '/')}" if paths.is_remote(f) else _absolute(f) for f in files]
    root = os.path.commonpath([os.path.dirname(f) or "." for f in files])
    return tuple(os.path.relpath(f, root).replace(os.sep, "/") for f in files)


def _absolute(file: str) -> str:
    return os.path.abspath(os.path.expanduser(file))


@contextmanager
def open_bytes(file: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Opens a file for streaming.

    Yields:
      (content, raw): the decompressed stream, and the file itself, whose `tell()` says how far
      reading has come on disk. Both are the same object where nothing is compressed.

    Raises:
      OSError, EOFError: it cannot be opened, or is no compressed stream though its name says so.
    """
    compression = COMPRESSIONS.get(os.path.splitext(file)[1].lower())
    with _open(file) as raw:
        if compression is None:
            yield raw, raw
        else:
            with pa.input_stream(raw, compression=compression) as stream:
                content = io.BufferedReader(stream, _BUFFER_BYTES)
                if not content.peek(1) and not raw.tell():
                    raise EOFError("it is empty")  # which no compressed stream is
                yield content, raw


def _open(file: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if not paths.is_remote(file):
        return epath.Path(file).open("rb")
    fs, path = paths.filesystem(file)
    # What most clients open reads lines whole, however long.
    return io.BufferedReader(fs.open(path, "rb"), _BUFFER_BYTES)


def sha256(file: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with epath.Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turns what the operating system says against writing to `path` into a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            fix = "free some space and run the same command again"
        else:
            fix = "choose a folder that can be written"
        why = error.strerror or str(error)
        raise UserError(f"{os.fspath(path)}: cannot be written ({why}); {fix}") from error


@contextmanager
def locked(folder: str | os.PathLike, why: str, log: Callable[[str], None]) -> Iterator[None]:
    """Only one process of this host at a time is inside for `folder`; says so where it waits."""
    lock = filelock.FileLock(f"{os.fspath(folder)}.lock")
    with writing(lock.lock_file):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log(f"waiting for another process that {why}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Writes a local file so that it is either there in full or not at all."""
    partial = f"{os.fspath(path)}.partial"
    with writing(path):
        with open(partial, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
