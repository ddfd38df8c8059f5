"""A local folder that stands for one in a bucket.

What is appended to (metrics, log, events) cannot be written to an object store, so it is written
here and goes up whole, when `upload` is called. The bucket is the truth: a mirror starts from what
is there, not from what an earlier one has left, and is thrown away in the end. Only who holds the
lock of `url` may have one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lmjax import paths
from lmjax.data import files as local_files


class Mirror:
    """The files of `url`, but for some of its folders, in a local folder."""

    def __init__(self, url: str, *, leave_out: tuple[str, ...]):
        """`leave_out`: beginnings of names that are not brought here."""
        self._url = url
        self.folder = Path(paths.local_folder(url, "workdirs"))
        with local_files.writing(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        try:
            names = [name for name in paths.find(url) if not name.startswith(leave_out)]
            paths.download(url, self.folder, names)
        except BaseException:
            self.close()
            raise
        self._uploaded = self._stamps()

    def upload(self) -> None:
        """Writes whatever has changed since the last time to the bucket, each file whole."""
        stamps = self._stamps()
        changed = [name for name, stamp in stamps.items() if self._uploaded.get(name) != stamp]
        paths.upload(self.folder, self._url, changed)
        self._uploaded = stamps

    def close(self) -> None:
        """Deletes the local folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stamps(self) -> dict[str, tuple[int, int]]:
        stats = {name: os.stat(self.folder / name) for name in paths.files_below(self.folder)}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
