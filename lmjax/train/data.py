"""The text of a run: its stores, their rows, batches for a program, unigram tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.batch import Objective
from lmjax.config import Config
from lmjax.data import cache, pipeline
from lmjax.data import plan as plan_lib
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.rows import PlannedRows, Rows, StreamRows
from lmjax.data.store import Store
from lmjax.data.tokenizer import AnyTokenizer
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
    train_rows: Rows
    eval_rows: Rows
    tables: dict[str, np.ndarray]

    def train_batches(self, program: Program) -> pipeline.TrainBatches:
        """Steps -> this host's rows."""
        rows = program.host_rows(program.micro_rows, program.num_micro)
        return _train_batches(program.config, self.train_rows, rows)

    def eval_batches(self, program: Program) -> pipeline.EvalBatches:
        """Chunks of one micro-batch each, of the held-out rows that the config asks for."""
        config = program.config
        num_rows = len(self.eval_rows)
        if config.eval.num_batches is not None:
            num_rows = min(num_rows, config.eval.num_batches * config.train.global_batch_size)
        return pipeline.EvalBatches(
            (self.eval_rows,),
            config.train.seed,
            (num_rows,),
            program.micro_rows,
            program.host_rows(program.micro_rows, 1),
        )

    def identity(self) -> dict[str, Any]:
        """What a checkpoint remembers of its data, to refuse another."""
        plan = getattr(self.train_rows, "plan", None)
        return {
            "tokenizer_sha256": self.stores.tokenizer.sha256,
            "data_sha256": self.stores.train.manifest_sha256,
            "eval_data_sha256": self.stores.held_out.manifest_sha256,
        } | ({} if plan is None else {"plan_sha256": plan.sha256})


def open_data(
    config: Config, stores: Stores, objective: Objective, eval_objective: Objective
) -> Data:
    """The rows of the stores, and the tables of the unigram baseline.

    Raises:
      UserError: a store holds no text, or the embedding has fewer rows than there are ids.
    """
    rows_V, tokenizer = make_ids(config, stores.tokenizer).num_rows, stores.tokenizer
    train_rows = make_rows(config, stores.train, objective)
    eval_rows = make_rows(config, stores.held_out, eval_objective)
    counts = pipeline.count_targets(_train_batches(config, train_rows, np.arange(0)), rows_V)
    unigram, content_unigram = counts.log_probs()
    num_bytes = np.zeros(rows_V, np.float32)
    num_bytes[: tokenizer.vocab_size] = tokenizer.bytes_per_id
    tables = {"unigram": unigram, "content_unigram": content_unigram, "bytes": num_bytes}
    return Data(stores, train_rows, eval_rows, tables)


def all_train_batches(
    config: Config, stores: Stores, objective: Objective
) -> pipeline.TrainBatches:
    """The batches a run would see, all rows of each."""
    rows = make_rows(config, stores.train, objective)
    return _train_batches(config, rows, np.arange(config.train.global_batch_size))


def _train_batches(config: Config, rows: Rows, of_host: np.ndarray) -> pipeline.TrainBatches:
    train = config.train
    return pipeline.TrainBatches((rows,), train.seed, train.global_batch_size, of_host)


def make_rows(config: Config, store: Store, objective: Objective) -> Rows:
    """The rows of a store, as `data.packing` says.

    Raises:
      UserError: there is not a single token to predict, or the objective has other rows.
    """
    data = config.data
    if data.packing == "stream":
        cross = objective.joins_documents if data.cross_documents is None else data.cross_documents
        if objective.joins_documents and not cross:
            raise UserError(
                f"config.objective.name={config.objective.name!r} joins the documents of a stream "
                "to one text, and config.data.cross_documents=False; set data.packing=pack to "
                "keep them apart"
            )
        rows: Rows = StreamRows(store, objective, cross)
    else:
        sizes = plan_lib.sizes(objective)
        plan = plan_lib.ensure(store, data.packing, sizes, data.cache_dir, logger.info)
        rows = PlannedRows(store, objective, plan)
    if len(rows) == 0:
        raise UserError(
            f"{store.path}: the {store.split} split holds no text; prepare it with more"
        )
    return rows
