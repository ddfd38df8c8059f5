"""Where a tool writes a folder: there itself, or beside the road to a bucket.

What is for a bucket is built in the cache folder, where an interrupted command finds its work
again, and goes up when it is whole: its commit marker last, so that a folder without one is
unfinished, whoever looks at it in the meantime.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator

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
