"""The text of a run: its stores, windows over them, batches for a program, unigram tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.batch import Objective
from lmjax.config import Config
from lmjax.data import cache, pipeline
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.store import Store
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.data.windows import Windows
from lmjax.errors import UserError
from lmjax.train.console import logger
from lmjax.train.setup import Program, make_ids


@dataclass(frozen=True)
class Stores:
    """Train and held-out text on disk, and the tokenizer of both."""

    tokenizer: AnyTokenizer
    train: Store
    held_out: Store


def open_stores(config: Config) -> Stores:
    """Opens what `data.path` names; raw text is tokenised once, with a progress bar."""
    data, tok = config.data, config.tokenizer
    reading = {
        "text_key": data.text_key,
        "text_split": data.text_split,
        "cache_dir": data.cache_dir,
        "num_workers": data.prepare_workers,
        "log": logger.info,
    }
    folder = cache.ensure_store(
        data.path,
        tokenizer_path=tok.path,
        vocab_size=tok.vocab_size,
        model_type=tok.model_type,
        character_coverage=tok.character_coverage,
        sample_bytes=tok.sample_bytes,
        eval_fraction=data.eval_fraction if data.eval_path is None else 0.0,
        **reading,
    )
    train = Store.open(folder, "train")
    held_out = cache.open_eval(data.eval_path, folder, **reading)
    return Stores(tokenizer_lib.load(train.tokenizer_path), train, held_out)


@dataclass(frozen=True)
class Data:
    """Train and held-out text of a run, seen through its objective."""

    stores: Stores
    train_windows: Windows
    eval_windows: Windows
    tables: dict[str, np.ndarray]

    def train_batches(self, program: Program) -> pipeline.TrainBatches:
        """Steps -> this host's rows."""
        train = program.config.train
        return pipeline.TrainBatches(
            self.train_windows,
            program.objective,
            train.seed,
            train.global_batch_size,
            program.host_rows(program.micro_rows, program.num_micro),
        )

    def eval_batches(self, program: Program) -> pipeline.EvalBatches:
        """Chunks of one micro-batch each, of the held-out windows that the config asks for."""
        config = program.config
        windows = len(self.eval_windows)
        if config.eval.num_batches is not None:
            windows = min(windows, config.eval.num_batches * config.train.global_batch_size)
        return pipeline.EvalBatches(
            self.eval_windows,
            program.objective,
            config.train.seed,
            windows,
            program.micro_rows,
            program.host_rows(program.micro_rows, 1),
        )

    def identity(self) -> dict[str, Any]:
        """What a checkpoint remembers of its data, to refuse another."""
        return {
            "tokenizer_sha256": self.stores.tokenizer.sha256,
            "data_sha256": self.stores.train.manifest_sha256,
            "eval_data_sha256": self.stores.held_out.manifest_sha256,
        }


def open_data(config: Config, stores: Stores, objective: Objective) -> Data:
    """Windows over the stores, and the tables of the unigram baseline.

    Raises:
      UserError: a store holds no text, or the embedding has fewer rows than there are ids.
    """
    rows_V, tokenizer = make_ids(config, stores.tokenizer).num_rows, stores.tokenizer
    train_windows = windows(stores.train, objective)
    eval_windows = windows(stores.held_out, objective)
    counts = pipeline.count_targets(train_windows, objective, config.train.seed, rows_V)
    unigram, content_unigram = counts.log_probs()
    num_bytes = np.zeros(rows_V, np.float32)
    num_bytes[: tokenizer.vocab_size] = tokenizer.bytes_per_id
    tables = {"unigram": unigram, "content_unigram": content_unigram, "bytes": num_bytes}
    return Data(stores, train_windows, eval_windows, tables)


def windows(store: Store, objective: Objective) -> Windows:
    """A store cut as the objective wants it.

    Raises:
      UserError: there is not a single token to predict.
    """
    cut = Windows(store, objective.window_length, objective.window_stride)
    if len(cut) == 0:
        raise UserError(
            f"{store.path}: the {store.split} split holds no text; prepare it with more"
        )
    return cut
