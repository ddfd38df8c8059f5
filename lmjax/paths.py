"""Files behind URLs: what goes wrong with them in one line, and moving them whole.

A path is local unless it has a scheme (`gs://`, `s3://`, `hf://`, ...). Object stores know neither
append nor rename nor locks nor memory maps, so nothing here asks for them: an object is read, or
written as a whole. All goes through fsspec, where `etils.epath` finds its files too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec

from lmjax import confine, redact
from lmjax.errors import UserError

# epath would prefer TensorFlow's file system wherever TensorFlow happens to be installed.
os.environ.setdefault("EPATH_USE_TF", "false")
# It prints a stack for what it raises as well.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)

CACHE_DIR = "~/.cache/lmjax"

_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}
_CREDENTIALS = {
    "gs": "run `gcloud auth application-default login` or set GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "run `aws configure` or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "hf": "run `hf auth login` or set HF_TOKEN",
}
# Modules of the exceptions that stores and their clients raise besides OSError.
_CLIENTS = {"aiohttp", "aiobotocore", "botocore", "gcsfs", "google", "httpx", "httpx2"}
_CLIENTS |= {"huggingface_hub", "requests", "s3fs"}
_DENIED = r"\b401\b|\b403\b|forbidden|denied|anonymous|credential|unauthenticated"
_MISSING = r"\b404\b|nosuchbucket|not_found|does not exist|bucket name"


def is_remote(path: str | os.PathLike) -> bool:
    """Whether `path` is a URL."""
    return "://" in os.fspath(path)


def filesystem(url: str | os.PathLike) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, without a cache of listings, and the path in it.

    Raises:
      UserError: an unknown scheme, its client is not installed, or the URL holds credentials.
    """
    redact.check_url(url)
    with errors(url):
        return fsspec.core.url_to_fs(os.fspath(url), use_listings_cache=False)


@contextlib.contextmanager
def errors(url: str | os.PathLike) -> Iterator[None]:
    """Turns what goes wrong inside with a remote `url` into a `UserError` of cause and fix."""
    try:
        yield
    except Exception as error:
        if not is_remote(url) or not _is_of_storage(error):
            raise
        raise UserError(explain(url, error)) from error


def _is_of_storage(error: Exception) -> bool:
    kinds = (OSError, ImportError, ValueError, RuntimeError)
    return _is_of_client(error) or isinstance(error, kinds)


def _is_of_client(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] in _CLIENTS


def is_access(error: Exception) -> bool:
    """Whether an error is about getting at a file, and not about what is in it."""
    kinds = (FileNotFoundError, PermissionError, ConnectionError, TimeoutError, ImportError)
    return isinstance(error, kinds) or _is_of_client(error) or "forbidden" in str(error).lower()


def explain(url: str | os.PathLike, error: Exception) -> str:
    """One line on a failure at `url`: what it is and what to do about it."""
    url, scheme = os.fspath(url), os.fspath(url).partition("://")[0]
    why = " ".join(str(error).split())[:200]
    # What the store says, without the names that the user has chosen.
    said = f"{type(error).__name__}: {error}".lower().replace(url.lower().split("://")[1], "")
    if isinstance(error, ImportError):
        extra = _EXTRAS.get(scheme)
        fix = f"pip install 'lmjax[{extra}]'" if extra else "install the package that it names"
        return f"{url}: {scheme}:// cannot be read here ({why}); {fix}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{url}: this disk is full ({why}); free some space and run the same command again"
    if "protocol not known" in said:
        return f"{url}: {scheme}:// is no kind of storage known here; use gs://, s3:// or a folder"
    missing = isinstance(error, FileNotFoundError) or re.search(_MISSING, said)
    if not missing and (isinstance(error, PermissionError) or re.search(_DENIED, said)):
        fix = _CREDENTIALS.get(scheme, "give this process the right to it")
        return f"{url}: no credentials, or they do not allow this ({why}); {fix}"
    if missing:
        return f"{url}: not there ({why}); check the URL, and create the bucket if it is missing"
    return (
        f"{url}: cannot be reached or used ({type(error).__name__}: {why}); check the network, "
        "then run the same command again"
    )


def read_bytes(path: str | os.PathLike, max_bytes: int | None = None) -> bytes | None:
    """The content of a local or remote file; None where there is none.

    Raises:
      UserError: it is larger than `max_bytes`, and is then not read; or it cannot be reached.
    """
    if not is_remote(path):
        file = Path(path).expanduser()
        if not file.is_file():
            return None
        _check_size(path, file.stat().st_size, max_bytes)
        return file.read_bytes()
    fs, name = filesystem(path)
    with errors(path):
        try:
            if max_bytes is not None:
                _check_size(path, fs.size(name) or 0, max_bytes)
            return fs.cat_file(name)
        except FileNotFoundError:
            return None


def _check_size(path: str | os.PathLike, num_bytes: int, most: int | None) -> None:
    if most is not None and num_bytes > most:
        raise UserError(
            f"{os.fspath(path)}: {num_bytes:,} bytes are more than such a file has (at most "
            f"{most:,}); copy it again"
        )


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes a local file, or a remote one at once."""
    if not is_remote(path):
        try:
            Path(path).write_bytes(data)
        except OSError as error:
            error.filename = error.filename or path  # a full disk does not say whose
            raise
        return
    fs, name = filesystem(path)
    with errors(path):
        fs.pipe_file(name, data)


def join(url: str | os.PathLike, *parts: str) -> str:
    """A path below a folder or URL."""
    return "/".join([os.fspath(url).rstrip("/"), *parts])


def local_folder(url: str, kind: str, cache_dir: str = CACHE_DIR) -> str:
    """The folder on this disk where things of `kind` are made for `url`; always the same one."""
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    return os.path.join(os.path.expanduser(cache_dir), kind, key)


def size(path: str) -> int:
    """Bytes of a local or remote file, where it is stored."""
    if not is_remote(path):
        return os.path.getsize(path)
    fs, name = filesystem(path)
    with errors(path):
        return fs.size(name) or 0


def version(url: str) -> str:
    """What tells the present content of a remote file from a later one, as far as is known."""
    fs, path = filesystem(url)
    with errors(url):
        return str(fs.ukey(path))


def find(url: str) -> list[str]:
    """Paths of all files below a remote folder, relative to it, sorted."""
    fs, root = filesystem(url)
    root = root.rstrip("/")
    with errors(url):
        try:
            return sorted(path.removeprefix(root).lstrip("/") for path in fs.find(root))
        except FileNotFoundError:
            return []


def download(url: str, folder: str | os.PathLike, names: Sequence[str]) -> None:
    """Copies files below `url` to the same names below a local folder.

    Raises:
      UserError: a name leads out of the folder, or a file cannot be fetched.
    """
    fs, root = filesystem(url)
    for name in names:
        confine.check_below(name, os.fspath(url))
        target = os.path.join(folder, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with errors(join(url, name)):
            fs.get_file(join(root, name), target)


def upload(folder: str | os.PathLike, url: str, names: Sequence[str]) -> None:
    """Copies files below a local folder to the same names below `url`, in this order."""
    fs, root = filesystem(url)
    for name in names:
        with errors(join(url, name)):
            fs.put_file(os.path.join(folder, name), join(root, name))


def move(old: str, new: str) -> None:
    """Renames a local file or folder, or copies and deletes a remote one; nothing, if not there."""
    if not is_remote(old):
        with contextlib.suppress(FileNotFoundError):
            os.rename(old, new)
        return
    fs, source = filesystem(old)
    with errors(old), contextlib.suppress(FileNotFoundError):
        fs.mv(source, filesystem(new)[1], recursive=True)


def remove(url: str) -> None:
    """Deletes a local or remote file or folder, where there is one."""
    fs, path = filesystem(url)
    with errors(url), contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def files_below(folder: str | os.PathLike) -> list[str]:
    """Paths of all files in a local folder, relative to it, sorted."""
    found = (os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
    return sorted(os.path.relpath(path, folder).replace(os.sep, "/") for path in found)
