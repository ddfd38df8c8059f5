"""From whatever `data.path` names to a token store, tokenised at most once.

A prepared store is used where it is, one in a bucket from a local copy. Raw text is tokenised into
the cache folder, under a key made of the files (name, size, time of change) and the settings, so
that a change of either makes another store and the same command finds its own again:

  CACHE/tokenizers/KEY/    trained on the text, where no tokenizer is given
  CACHE/stores/KEY/        see `lmjax.data.store`
  CACHE/staged/KEY/        copies of stores in buckets, see `lmjax.data.staging`
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.data import prepare as prepare_lib
from lmjax.data import progress, staging, store, tokenizer_training
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
    if _is_url_of_store(path):
        path = staging.fetch(path, cache_dir, log)
    if store.is_store(path):
        return _existing(path, tokenizer_path)
    files = files_lib.find_files(path)
    cache_dir = os.path.expanduser(cache_dir)
    text = {"files": _identity(files), "text_key": text_key, "text_split": text_split}
    if tokenizer_path is None:
        training = {
            "vocab_size": vocab_size,
            "model_type": model_type,
            "character_coverage": character_coverage,
            "sample_bytes": sample_bytes,
        }
        key = _key({**text, **training})
        tokenizer_path = os.path.join(cache_dir, "tokenizers", key)
        split = {"text_key": text_key, "text_split": text_split}
        _ensure_tokenizer(files, tokenizer_path, {**training, **split}, log)
    sha256 = tokenizer_lib.load(tokenizer_path).sha256
    key = _key({**text, "eval_fraction": eval_fraction, "tokenizer": sha256})
    output = os.path.join(cache_dir, "stores", key)
    if store.is_store(output):
        log(f"using the tokens of {path} prepared before: {output}")
        return output
    log(f"tokenising {path} (once; kept in {output})")
    with progress.shown("tokenising", log) as show:
        manifest = prepare_lib.prepare(
            files,
            tokenizer_path,
            output,
            text_key=text_key,
            text_split=text_split,
            eval_fraction=eval_fraction,
            num_workers=num_workers,
            progress=show,
            log=log,
        )
    log(progress.summary(manifest))
    return output


def open_eval(
    eval_path: str | None,
    train_store: str,
    *,
    text_key: str,
    text_split: str,
    cache_dir: str,
    num_workers: int | None,
    log: Log,
) -> store.Store:
    """The held-out documents of a run.

    Without `eval_path` they are the "eval" split of `train_store`. Else they are all of the text
    that `eval_path` names, tokenised with the tokenizer of `train_store`, or the "train" split of
    the store it names, which must have the same tokenizer.

    Raises:
      UserError: as `ensure_store` and `Store.open`.
    """
    if eval_path is None:
        return store.Store.open(train_store, "eval")
    folder = ensure_store(
        eval_path,
        tokenizer_path=os.path.join(train_store, store.TOKENIZER),
        text_key=text_key,
        text_split=text_split,
        eval_fraction=0.0,
        cache_dir=cache_dir,
        num_workers=num_workers,
        log=log,
    )
    if os.path.realpath(folder) == os.path.realpath(train_store):
        raise UserError(f"{eval_path}: evaluates on what it trains on; leave data.eval_path unset")
    return store.Store.open(folder, "train")


def is_prepared(path: str) -> bool:
    """Whether `data.path` names a store, with a tokenizer of its own, and not raw text."""
    return store.is_store(path) or _is_url_of_store(path)


def _is_url_of_store(path: str) -> bool:
    one_folder = not files_lib.suffix(path) and not set("*?[,") & set(path)
    return paths.is_remote(path) and one_folder and staging.is_store(path)


def _existing(path: str, tokenizer_path: str | None) -> str:
    manifest, _ = store.read_manifest(path)
    if tokenizer_path is not None:
        sha256 = tokenizer_lib.load(tokenizer_path).sha256
        if sha256 != manifest["tokenizer"]["sha256"]:
            raise UserError(
                f"{path}: was tokenised with another tokenizer than {tokenizer_path}; "
                "prepare the text again, or leave tokenizer.path unset to use the store's own"
            )
    return os.path.abspath(os.path.expanduser(path))


def _ensure_tokenizer(
    files: Sequence[str], folder: str, settings: dict[str, Any], log: Log
) -> None:
    with files_lib.writing(folder):
        os.makedirs(folder, exist_ok=True)
    with files_lib.locked(folder, f"trains the tokenizer {folder}", log):
        if os.path.exists(os.path.join(folder, tokenizer_lib.CONFIG_FILE)):
            log(f"using the tokenizer trained on this text before: {folder}")
        else:
            tokenizer_training.train(files, folder, log=log, **settings)


def _identity(files: Sequence[str]) -> list[tuple[str, int, float | str]]:
    return [_file_identity(file) for file in files]


def _file_identity(file: str) -> tuple[str, int, float | str]:
    if paths.is_remote(file):
        return file, paths.size(file), paths.version(file)
    stat = epath.Path(file).stat()
    return os.path.abspath(file), stat.length, stat.mtime


def _key(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
