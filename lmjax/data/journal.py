"""How far the preparation of a store has come: one file, replaced as a whole after each shard.

It is a NumPy archive (whose members carry checksums) of a JSON text and of each split's tokens that
are in no shard yet. A journal that cannot be read is as good as none: the work starts afresh.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from typing import Any

import numpy as np

from lmjax.data import files as files_lib

FILE = "progress.npz"


def save(folder: str, meta: dict[str, Any], pending: dict[str, np.ndarray]) -> None:
    """Replaces the journal of `folder`.

    Args:
      folder: of the unfinished store.
      meta: fit for JSON.
      pending: tokens of each split, by its name.
    """
    content = io.BytesIO()
    np.savez(content, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **pending)
    files_lib.write_whole(os.path.join(folder, FILE), content.getvalue())


def load(folder: str, key: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """(meta, pending) if there is a readable journal whose `meta["key"]` is `key`."""
    try:
        with (
            open(os.path.join(folder, FILE), "rb") as stream,
            np.load(stream, allow_pickle=False) as archive,
        ):
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(arrays.pop("meta").tobytes())
        return (meta, arrays) if meta["key"] == key else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return None
