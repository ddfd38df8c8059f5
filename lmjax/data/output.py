"""Where a tool writes a folder or a file: there itself, or beside the road to a bucket.

What is for a bucket is built in the cache folder, where an interrupted command finds its work
again, and goes up when it is whole: its commit marker last, so that a folder without one is
unfinished, whoever looks at it in the meantime.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.errors import UserError


@contextlib.contextmanager
def folder(
    path: str, *, marker: str, cache_dir: str = paths.CACHE_DIR, log: Callable[[str], None]
) -> Iterator[str]:
    """Yields the local folder to write what belongs to `path`; it is there when the block ends.

    Args:
      path: local folder or URL.
      marker: name of the file that says that the folder is whole.
      cache_dir: where the folder of a URL is built.
      log: gets lines worth telling the user.

    Raises:
      UserError: the bucket cannot be written, or holds a finished folder already.
    """
    if not paths.is_remote(path):
        yield path
        return
    url = path.rstrip("/")
    if paths.read_bytes(paths.join(url, marker)) is not None:
        raise UserError(f"{url}: holds a finished one already; choose another output or delete it")
    local = paths.local_folder(url, "outputs", cache_dir)
    with files_lib.writing(local):
        os.makedirs(local, exist_ok=True)
    yield local
    names = [name for name in paths.files_below(local) if name != marker]
    log(f"writing {len(names) + 1} files to {url}")
    paths.upload(local, url, [*names, marker])
    shutil.rmtree(local)


@contextlib.contextmanager
def new_folder(path: str, *, marker: str, log: Callable[[str], None]) -> Iterator[str]:
    """As `folder`, for what is made in one go: local ones, too, are there whole or not at all.

    Raises:
      UserError: as `folder`; or the local one holds something already.
    """
    if paths.is_remote(path):
        with folder(path, marker=marker, log=log) as local:
            yield local
        return
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
        what = "holds something already" if os.path.isdir(path) else "is a file"
        raise UserError(f"{path}: {what}; choose another output or delete it")
    partial = f"{path}.partial"
    try:
        with files_lib.writing(path):
            shutil.rmtree(partial, ignore_errors=True)  # of a command that was killed
            os.makedirs(partial)
            yield partial
            os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_apart(path: str, files: Sequence[str]) -> None:
    """Raises UserError if what is to be written is one of the files that are read."""
    for file in files:
        remote = paths.is_remote(path) or paths.is_remote(file)
        if path == file or (not remote and os.path.realpath(path) == os.path.realpath(file)):
            raise UserError(f"{path}: is the input, too; choose another output")


@contextlib.contextmanager
def file(path: str) -> Iterator[BinaryIO]:
    """Yields the stream to write what belongs to `path`; all is there when the block ends.

    After an error nothing is. What is for a name in .gz or .zst is compressed.

    Raises:
      UserError: it cannot be written; said at once, before anything is done in vain.
    """
    if not paths.is_remote(path):
        with _replacing(os.path.expanduser(path)) as stream:
            yield stream
        return
    probe = f"{path}.partial"
    paths.write_bytes(probe, b"")
    paths.remove(probe)
    url, name = os.path.split(path)
    local = paths.local_folder(path, "outputs")
    with files_lib.writing(local):
        os.makedirs(local, exist_ok=True)
    try:
        with _replacing(os.path.join(local, name)) as stream:
            yield stream
        paths.upload(local, url, [name])
    finally:
        shutil.rmtree(local, ignore_errors=True)


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    """A local file that takes its name when it is whole."""
    if os.path.isdir(path):
        raise UserError(f"{path}: is a folder; give the name of a file")
    partial = f"{path}.partial"
    compression = files_lib.COMPRESSIONS.get(os.path.splitext(path)[1].lower())
    try:
        with files_lib.writing(path):
            with open(partial, "wb") as raw, pa.output_stream(raw, compression) as stream:
                yield stream
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            os.remove(partial)
