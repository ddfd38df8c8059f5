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
from lmjax.data.mixture import Mixture, shares
from lmjax.data.rows import PlannedRows, Rows, StreamRows
from lmjax.data.store import Store
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.errors import UserError
from lmjax.train.console import logger
from lmjax.train.setup import Program, make_ids


@dataclass(frozen=True)
class Stores:
    """Train and held-out text on disk, and the tokenizer of both.

    Of a mixture there is a train store for each source, and a held-out one unless all are held out
    together, by `data.eval_path`.
    """

    tokenizer: AnyTokenizer
    train: tuple[Store, ...]
    held_out: tuple[Store, ...]


def open_stores(config: Config) -> Stores:
    """Opens what `data.path` or `data.sources` names; raw text is tokenised once, with a bar.

    Raises:
      UserError: as `cache.ensure_store`, or the stores of a mixture have different tokenizers.
    """
    data, tok = config.data, config.tokenizer
    reading = {
        "text_key": data.text_key,
        "text_split": data.text_split,
        "cache_dir": data.cache_dir,
        "num_workers": data.prepare_workers,
        "log": logger.info,
    }
    training = {
        "vocab_size": tok.vocab_size,
        "model_type": tok.model_type,
        "character_coverage": tok.character_coverage,
        "sample_bytes": tok.sample_bytes,
    }
    tokenizer_path = tok.path
    if data.sources and tokenizer_path is None:
        shared = cache.shared_tokenizer(data.paths, data.cache_dir, logger.info)
        tokenizer_path = shared or cache.ensure_tokenizer(
            data.paths, **training, **{k: v for k, v in reading.items() if k != "num_workers"}
        )
    folders = [
        cache.ensure_store(
            path,
            tokenizer_path=tokenizer_path,
            eval_fraction=data.eval_fraction if data.eval_path is None else 0.0,
            **training,
            **reading,
        )
        for path in data.paths
    ]
    train = tuple(Store.open(folder, "train") for folder in folders)
    held_out = cache.open_eval(data.eval_path, folders, **reading)
    return Stores(tokenizer_lib.load(train[0].tokenizer_path), train, held_out)


def make_mixture(config: Config, stores: Stores) -> Mixture:
    """The sources' shares of the rows, as the config says."""
    weights = config.data.weights or [store.num_tokens for store in stores.train]
    return Mixture(shares(weights, config.data.temperature))


@dataclass(frozen=True)
class Data:
    """Train and held-out text of a run, seen through its objective.

    Attributes:
      stores, mixture: what is on disk, and in which shares it is taken.
      names: of the sources of a mixture; empty where there is one text.
      train_rows, eval_rows: of each store.
      tables: of the unigram baseline.
    """

    stores: Stores
    mixture: Mixture
    names: tuple[str, ...]
    train_rows: tuple[Rows, ...]
    eval_rows: tuple[Rows, ...]
    tables: dict[str, np.ndarray]

    @property
    def shares(self) -> dict[str, float]:
        """Name of each source of a mixture -> its share of the rows."""
        return dict(zip(self.names, self.mixture.share_K, strict=False))

    def train_batches(self, program: Program) -> pipeline.TrainBatches:
        """Steps -> this host's rows."""
        rows = program.host_rows(program.micro_rows, program.num_micro)
        return _train_batches(program.config, self.train_rows, self.mixture, rows)

    def eval_batches(self, program: Program) -> pipeline.EvalBatches:
        """Chunks of one micro-batch each, of the held-out rows that the config asks for.

        What `eval.num_batches` allows is shared by the sources as the rows of training are.
        """
        config = program.config
        num_rows = [len(rows) for rows in self.eval_rows]
        if config.eval.num_batches is not None:
            wanted = config.eval.num_batches * config.train.global_batch_size
            several = len(self.eval_rows) > 1
            limits = self.mixture.counts(wanted).tolist() if several else [wanted]
            num_rows = [min(n, max(limit, 1)) for n, limit in zip(num_rows, limits, strict=True)]
        return pipeline.EvalBatches(
            self.eval_rows,
            config.train.seed,
            tuple(num_rows),
            program.micro_rows,
            program.host_rows(program.micro_rows, 1),
        )

    def epochs(self, num_rows: int) -> list[float]:
        """Passes over each store's rows after so many rows of the run."""
        counts = self.mixture.counts(num_rows).tolist()
        return [n / len(rows) for n, rows in zip(counts, self.train_rows, strict=True)]

    def identity(self) -> dict[str, Any]:
        """What a checkpoint remembers of its data, to refuse another."""
        known = {"tokenizer_sha256": self.stores.tokenizer.sha256}
        if self.names:
            known["sources"] = ",".join(self.names)
        of_train = [f"/{name}" for name in self.names] or [""]
        of_eval = of_train if len(self.eval_rows) == len(self.train_rows) else [""]
        for suffix, rows in zip(of_train, self.train_rows, strict=True):
            known[f"data_sha256{suffix}"] = rows.store.manifest_sha256
            if (plan := getattr(rows, "plan", None)) is not None:
                known[f"plan_sha256{suffix}"] = plan.sha256
        for suffix, rows in zip(of_eval, self.eval_rows, strict=True):
            known[f"eval_data_sha256{suffix}"] = rows.store.manifest_sha256
        return known


def open_data(
    config: Config, stores: Stores, objective: Objective, eval_objective: Objective
) -> Data:
    """The rows of the stores, and the tables of the unigram baseline.

    Raises:
      UserError: a store holds no text, or the embedding has fewer rows than there are ids.
    """
    rows_V, tokenizer = make_ids(config, stores.tokenizer).num_rows, stores.tokenizer
    mixture = make_mixture(config, stores)
    train_rows = tuple(make_rows(config, store, objective) for store in stores.train)
    eval_rows = tuple(make_rows(config, store, eval_objective) for store in stores.held_out)
    batches = _train_batches(config, train_rows, mixture, np.arange(0))
    counts = pipeline.count_targets(batches, rows_V)
    unigram, content_unigram = counts.log_probs()
    num_bytes = np.zeros(rows_V, np.float32)
    num_bytes[: tokenizer.vocab_size] = tokenizer.bytes_per_id
    tables = {"unigram": unigram, "content_unigram": content_unigram, "bytes": num_bytes}
    return Data(stores, mixture, config.data.source_names, train_rows, eval_rows, tables)


def all_train_batches(
    config: Config, stores: Stores, objective: Objective
) -> pipeline.TrainBatches:
    """The batches a run would see, all rows of each."""
    rows = tuple(make_rows(config, store, objective) for store in stores.train)
    of_host = np.arange(config.train.global_batch_size)
    return _train_batches(config, rows, make_mixture(config, stores), of_host)


def _train_batches(
    config: Config, rows: tuple[Rows, ...], mixture: Mixture, of_host: np.ndarray
) -> pipeline.TrainBatches:
    train = config.train
    return pipeline.TrainBatches(rows, train.seed, train.global_batch_size, of_host, mixture)


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
