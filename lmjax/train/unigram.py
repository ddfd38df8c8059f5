"""Log-probabilities of single tokens, by how frequent they are in text: a baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lmjax import paths
from lmjax.data import cache, pipeline
from lmjax.data.store import Store
from lmjax.data.text import read_documents
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.train import copied_checkpoints
from lmjax.train.trained import Trained

MAX_TOKENS = 2_000_000
_WINDOW = 1024


def of_run(path: str, model: Trained, max_tokens: int = MAX_TOKENS) -> np.ndarray | None:
    """Of the text that a model was trained on, float32 [V], from a sample spread evenly over it.

    Args:
      path: the workdir.
      model: loaded from it.
      max_tokens: at most so many are counted.

    Returns:
      None where the tokens are not on this machine.
    """
    config = model.config
    with copied_checkpoints.reading(paths.join(path, "checkpoints"), model.step) as (reader, step):
        meta = reader.meta(step)
    names = config.data.source_names or ("",)
    counts_V = np.zeros(model.tokenizer.vocab_size)
    for name, text in zip(names, config.data.paths, strict=True):
        sha256 = meta.get(f"data_sha256/{name}" if name else "data_sha256")
        folder = cache.find_store(sha256, [text], config.data.cache_dir)
        if folder is None:
            return None
        share = meta.get("shares", {}).get(name, 1 / len(names))
        counts_V += _counted(Store.open(folder, "train"), share * max_tokens)
    return pipeline.smoothed(counts_V)


def _counted(store: Store, wanted: float) -> np.ndarray:
    """Counts that come to `wanted`, or fewer where the store has fewer."""
    num_windows = max(1, min(int(wanted), store.num_tokens) // _WINDOW)
    starts = np.linspace(0, max(store.num_tokens - _WINDOW, 0), num_windows).astype(np.int64)
    length = min(_WINDOW, store.num_tokens)
    counts_V = np.zeros(store.vocab_size)
    for some in np.array_split(starts, -(-num_windows // 256)):
        counts_V += np.bincount(store.read(some, length).ravel(), minlength=store.vocab_size)
    return counts_V


def of_text(
    files: Sequence[str], tokenizer: AnyTokenizer, text_key: str, max_tokens: int = MAX_TOKENS
) -> np.ndarray:
    """Of the first tokens of text files from `data.files.find_files`, float32 [V].

    Raises:
      UserError: a file cannot be read.
    """
    counts_V, num_tokens = np.zeros(tokenizer.vocab_size), 0
    reading = {"text_key": text_key, "text_split": "file", "counts": Counter()}
    for document in read_documents(files, **reading):
        ids = tokenizer.encode(document.text)[: max_tokens - num_tokens]
        counts_V += np.bincount(ids, minlength=len(counts_V))
        num_tokens += len(ids)
        if num_tokens >= max_tokens:
            break
    return pipeline.smoothed(counts_V)
