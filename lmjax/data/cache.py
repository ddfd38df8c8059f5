"""From whatever `data.path` or `data.sources` names to token stores, tokenised at most once.

A prepared store is used where it is, one in a bucket from a local copy. Raw text is tokenised into
the cache folder, under a key made of the files (name, size, time of change) and the settings, so
that a change of either makes another store and the same command finds its own again:

  CACHE/tokenizers/KEY/    trained on the text, where no tokenizer is given
  CACHE/stores/KEY/        see `lmjax.data.store`
  CACHE/staged/KEY/        copies of stores in buckets, see `lmjax.data.staging`
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.data import prepare as prepare_lib
from lmjax.data import progress, staging, store, tokenizer_training, verify
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.errors import UserError

Log = Callable[[str], None]


def ensure_store(
    path: str,
    *,
    tokenizer_path: str | None,
    vocab_size: int | None = None,
    model_type: str | None = None,
    character_coverage: float | None = None,
    sample_bytes: int | None = None,
    text_key: str,
    text_split: str,
    eval_fraction: float,
    cache_dir: str,
    num_workers: int | None,
    log: Log,
) -> str:
    """Folder of the store of `path`, prepared now or before.

    Args:
      path: folder or URL of a prepared store, or raw text as `find_files` understands it.
      tokenizer_path: folder of a tokenizer; None: the store's own, or one trained on the text.
      vocab_size, model_type, character_coverage, sample_bytes: of that training, see
        `tokenizer_training.train`; not asked for where there is a tokenizer.
      text_key, text_split, eval_fraction, num_workers: of raw text, see `prepare.prepare`.
      cache_dir: where tokenizers and stores are kept.
      log: gets lines worth telling the user.

    Raises:
      UserError: as the readers, the training and `prepare`; or the store has another tokenizer.
    """
    prepared = _prepared(path, cache_dir, log)
    if prepared is not None:
        return _existing(prepared, tokenizer_path)
    text = {"text_key": text_key, "text_split": text_split}
    if tokenizer_path is None:
        tokenizer_path = ensure_tokenizer(
            [path],
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=character_coverage,
            sample_bytes=sample_bytes,
            cache_dir=cache_dir,
            log=log,
            **text,
        )
    files, sha256 = files_lib.find_files(path), tokenizer_lib.load(tokenizer_path).sha256
    identity = {"files": _identity(files), "eval_fraction": eval_fraction, "tokenizer": sha256}
    output = os.path.join(os.path.expanduser(cache_dir), "stores", _key({**text, **identity}))
    if store.is_store(output):
        log(f"using the tokens of {path} prepared before: {output}")
        return _existing(output, tokenizer_path)
    log(f"tokenising {path} (once; kept in {output})")
    with progress.shown("tokenising", log) as show:
        manifest = prepare_lib.prepare(
            files,
            tokenizer_path,
            output,
            eval_fraction=eval_fraction,
            num_workers=num_workers,
            progress=show,
            log=log,
            **text,
        )
    log(progress.summary(manifest))
    return output


def ensure_tokenizer(
    texts: Sequence[str],
    *,
    vocab_size: int | None,
    model_type: str | None,
    character_coverage: float | None,
    sample_bytes: int | None,
    text_key: str,
    text_split: str,
    cache_dir: str,
    log: Log,
) -> str:
    """Folder of the tokenizer trained on raw text, now or before.

    What is not said here is as in `ensure_store`.

    Args:
      texts: as `find_files` understands them; it is trained on all of them together.

    Raises:
      UserError: as the readers and the training.
    """
    files = [file for path in texts for file in files_lib.find_files(path)]
    settings = {
        "vocab_size": vocab_size,
        "model_type": model_type,
        "character_coverage": character_coverage,
        "sample_bytes": sample_bytes,
        "text_key": text_key,
        "text_split": text_split,
    }
    key = _key({"files": _identity(files), **settings})
    folder = os.path.join(os.path.expanduser(cache_dir), "tokenizers", key)
    with files_lib.writing(folder):
        os.makedirs(folder, exist_ok=True)
    with files_lib.locked(folder, f"trains the tokenizer {folder}", log):
        if os.path.exists(os.path.join(folder, tokenizer_lib.CONFIG_FILE)):
            log(f"using the tokenizer trained on this text before: {folder}")
        else:
            tokenizer_training.train(files, folder, log=log, **settings)
    return folder


def shared_tokenizer(texts: Sequence[str], cache_dir: str, log: Log) -> str | None:
    """Folder of the tokenizer of the prepared stores among some texts; None: there are none.

    Raises:
      UserError: two of them have different ones.
    """
    found: tuple[str, str, str] | None = None
    for path in texts:
        if (folder := _prepared(path, cache_dir, log)) is None:
            continue
        sha256 = store.read_manifest(folder)[0]["tokenizer"]["sha256"]
        if found is None:
            found = path, folder, sha256
        elif found[2] != sha256:
            raise UserError(
                f"{found[0]} and {path}: were tokenised with different tokenizers; prepare one of "
                f"them again with tools/prepare_data.py --tokenizer={found[1]}/{store.TOKENIZER}"
            )
    return found and os.path.join(os.path.expanduser(found[1]), store.TOKENIZER)


def open_eval(
    eval_path: str | None,
    train_stores: Sequence[str],
    *,
    text_key: str,
    text_split: str,
    cache_dir: str,
    num_workers: int | None,
    log: Log,
) -> tuple[store.Store, ...]:
    """The held-out documents of a run.

    Without `eval_path` they are the "eval" split of each of `train_stores`. Else they are all of
    the text that `eval_path` names, tokenised with the tokenizer that those share, or the "train"
    split of the store it names, which must have the same tokenizer.

    Raises:
      UserError: as `ensure_store` and `Store.open`.
    """
    if eval_path is None:
        return tuple(store.Store.open(folder, "eval") for folder in train_stores)
    folder = ensure_store(
        eval_path,
        tokenizer_path=os.path.join(train_stores[0], store.TOKENIZER),
        text_key=text_key,
        text_split=text_split,
        eval_fraction=0.0,
        cache_dir=cache_dir,
        num_workers=num_workers,
        log=log,
    )
    if os.path.realpath(folder) in map(os.path.realpath, train_stores):
        raise UserError(f"{eval_path}: evaluates on what it trains on; leave data.eval_path unset")
    return (store.Store.open(folder, "train"),)


def find_store(sha256: str | None, folders: Sequence[str], cache_dir: str) -> str | None:
    """The store with this hash of its manifest: one of the folders, or in the cache folder."""
    cached = glob.glob(os.path.join(os.path.expanduser(cache_dir), "*", "*"))
    for folder in (*folders, *sorted(cached)):
        if sha256 is None or not store.is_store(folder):
            continue
        try:
            found = store.read_manifest(folder)[1]
        except (UserError, OSError):
            continue
        if found == sha256:
            return folder
    return None


def is_prepared(path: str) -> bool:
    """Whether `data.path` names a store, with a tokenizer of its own, and not raw text."""
    return store.is_store(path) or _is_url_of_store(path)


def _is_url_of_store(path: str) -> bool:
    one_folder = not files_lib.suffix(path) and not set("*?[,") & set(path)
    return paths.is_remote(path) and one_folder and staging.is_store(path)


def _prepared(path: str, cache_dir: str, log: Log) -> str | None:
    """The folder of a prepared store, a local copy of one in a bucket; None: this is raw text."""
    if _is_url_of_store(path):
        return staging.fetch(path, cache_dir, log)
    return path if store.is_store(path) else None


def _existing(path: str, tokenizer_path: str | None) -> str:
    manifest, _ = store.read_manifest(path)
    verify.check_tokenizer(path, manifest)
    if tokenizer_path is not None:
        sha256 = tokenizer_lib.load(tokenizer_path).sha256
        if sha256 != manifest["tokenizer"]["sha256"]:
            raise UserError(
                f"{path}: was tokenised with another tokenizer than {tokenizer_path}; "
                "prepare the text again, or leave tokenizer.path unset to use the store's own"
            )
    return os.path.abspath(os.path.expanduser(path))


def _identity(files: Sequence[str]) -> list[tuple[str, int, float | str]]:
    return [_file_identity(file) for file in files]


def _file_identity(file: str) -> tuple[str, int, float | str]:
    if paths.is_remote(file):
        return file, paths.size(file), paths.version(file)
    stat = epath.Path(file).stat()
    return os.path.abspath(file), stat.length, stat.mtime


def _key(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
