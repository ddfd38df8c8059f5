"""Files that a task writes: whole under their names, or not there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from lmjax.data import files as files_lib

PARTIAL = ".partial"


class Lines:
    """Lines of JSON in files NAME.jsonl.zst of a folder, which are there once all are whole."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._open: dict[str, tuple[BinaryIO, Any]] = {}

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Adds a line to the file `name` (may have folders in it)."""
        if name not in self._open:
            path = f"{self._path(name)}{PARTIAL}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            raw = open(path, "wb")  # noqa: SIM115  closed in `close`
            self._open[name] = raw, pa.CompressedOutputStream(raw, "zstd")
        self._open[name][1].write(_line(content))

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, f"{name}.jsonl.zst")

    def publish(self) -> dict[str, str]:
        """Ends all files, on disk, and gives them their names; returns {file: SHA-256}."""
        for raw, stream in self._open.values():
            stream.close()
            raw.close()
        found = {}
        for name in sorted(self._open):
            path = self._path(name)
            _sync(f"{path}{PARTIAL}")
            os.replace(f"{path}{PARTIAL}", path)
            found[os.path.relpath(path, self._folder)] = files_lib.sha256(path)
        self._open.clear()
        return found

    def abandon(self) -> None:
        """Closes what is open; nothing gets its name."""
        for raw, stream in self._open.values():
            with contextlib.suppress(Exception):
                stream.close()
            with contextlib.suppress(Exception):
                raw.close()
        self._open.clear()


def _sync(path: str) -> None:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def _line(content: dict[str, Any]) -> bytes:
    try:
        return json.dumps(content, ensure_ascii=False, default=str).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair in a field
        return json.dumps(content, default=str).encode() + b"\n"


def read(path: str) -> Iterator[dict[str, Any]]:
    """The lines of a file that `Lines` wrote; none where there is no file."""
    if not os.path.exists(path):
        return
    with files_lib.open_bytes(path) as (content, _):
        for line in content:
            yield json.loads(line)
