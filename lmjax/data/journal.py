"""How far the preparation of a store has come: one file, replaced as a whole after each shard.

It is small: tokens that are in no shard yet lie in files of their own, which the writers keep. A
journal that cannot be read is as good as none: the work starts afresh.
"""

from __future__ import annotations

import json
import os
from typing import Any

from lmjax.data import files as files_lib

FILE = "progress.json"


def save(folder: str, meta: dict[str, Any]) -> None:
    """Replaces the journal of `folder`; `meta` is fit for JSON."""
    files_lib.write_whole(os.path.join(folder, FILE), json.dumps(meta).encode())


def load(folder: str, key: str) -> dict[str, Any] | None:
    """What was saved, if that is readable and its `meta["key"]` is `key`."""
    try:
        with open(os.path.join(folder, FILE), "rb") as stream:
            meta = json.load(stream)
        return meta if meta["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
