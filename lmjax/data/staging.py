"""A store in a bucket -> the same store on this host's disk, once, checked against its manifest.

Reading windows at random needs memory maps and cheap seeks, which object stores do not have, so a
store is copied to `CACHE/staged/HASH` before the first batch; HASH is that of its manifest. Several
processes of a host share one copy, and one that was interrupted goes on with what is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.data import manifest as manifest_lib
from lmjax.data import progress, store, tokenizer
from lmjax.errors import UserError

_THREADS = 8


def is_store(url: str) -> bool:
    """Whether `url` is the folder of a finished store."""
    return paths.read_bytes(paths.join(url, store.MANIFEST)) is not None


def fetch(url: str, cache_dir: str, log: Callable[[str], None]) -> str:
    """Local folder that holds the store of `url`, copied now or before.

    Raises:
      UserError: it cannot be read, is not what its manifest says, or there is no room for it.
    """
    file = paths.join(url, store.MANIFEST)
    content = paths.read_bytes(file, manifest_lib.MAX_BYTES)
    if content is None:
        raise UserError(
            f"{url}: not a finished store ({store.MANIFEST} is missing); "
            "run tools/prepare_data.py to its end"
        )
    manifest, sha256 = store.parse_manifest(content, file)
    folder = os.path.join(os.path.expanduser(cache_dir), "staged", sha256[:16])
    with files_lib.writing(folder):
        os.makedirs(os.path.join(folder, store.TOKENIZER), exist_ok=True)
    with files_lib.locked(folder, f"fetches {url}", log):
        entries = _entries(manifest)
        missing = [entry for entry in entries if not _is_there(folder, entry)]
        if store.is_store(folder) and not missing:
            log(f"using the copy of {url} fetched before: {folder}")
        else:
            _fetch(url, folder, manifest, missing, log)
            files_lib.write_whole(os.path.join(folder, store.MANIFEST), content)
    return folder


def _entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Name, bytes and SHA-256 of all files that the manifest speaks of."""
    return [e for split in manifest["splits"].values() for e in store.split_files(split)]


def _fetch(
    url: str,
    folder: str,
    manifest: dict[str, Any],
    missing: list[dict[str, Any]],
    log: Callable[[str], None],
) -> None:
    """Copies the files that are missing, and the tokenizer."""
    total = sum(e["bytes"] for e in missing)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise UserError(
            f"{folder}: the store {url} needs {total} bytes more, the disk has {free} free; "
            "free some space, or set data.cache_dir to a larger disk"
        )
    log(f"fetching {url}: {total:,} bytes (once; kept in {folder})")
    tokens, done = sum(s["num_tokens"] for s in manifest["splits"].values()), 0
    with progress.shown("fetching", log) as show, ThreadPoolExecutor(_THREADS) as pool:
        jobs = {pool.submit(_fetch_file, url, folder, e): e["bytes"] for e in missing}
        try:
            for job in as_completed(jobs):
                job.result()
                done += jobs[job]
                show(done, total, tokens * done // max(total, 1))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    files = tokenizer.file_names(paths.join(url, store.TOKENIZER))
    names = [f"{store.TOKENIZER}/{name}" for name in files]
    paths.download(url, folder, names)
    sha256 = tokenizer.load(os.path.join(folder, store.TOKENIZER)).sha256
    if sha256 != manifest["tokenizer"]["sha256"]:
        raise UserError(
            f"{url}/{store.TOKENIZER}: not the tokenizer of this store; upload it again"
        )


def _is_there(folder: str, entry: dict[str, Any]) -> bool:
    """Whether a file was fetched before; it has its name only once its content was checked."""
    path = os.path.join(folder, entry["file"])
    return os.path.isfile(path) and os.path.getsize(path) == entry["bytes"]


def _fetch_file(url: str, folder: str, entry: dict[str, Any]) -> None:
    source, target = paths.join(url, entry["file"]), os.path.join(folder, entry["file"])
    partial = f"{target}.partial"
    fs, path = paths.filesystem(source)
    with paths.errors(source):
        fs.get_file(path, partial)
    if os.path.getsize(partial) != entry["bytes"]:
        why = f"has {os.path.getsize(partial)} bytes, not {entry['bytes']}"
    elif files_lib.sha256(partial) != entry["sha256"]:
        why = "is not the content its SHA-256 promises"
    else:
        os.replace(partial, target)
        return
    os.remove(partial)
    raise UserError(f"{source}: {why}; upload the store again, or prepare it anew")
