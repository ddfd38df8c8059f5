"""The text or examples of a run: their stores, rows, batches for a program, unigram tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax import objectives
from lmjax.batch import LabelledObjective, Objective
from lmjax.config import Config
from lmjax.data import cache, labelled, pipeline
from lmjax.data import plan as plan_lib
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.labelled import ExampleRows, LabelledSet, TextEncoder
from lmjax.data.mixture import Mixture, shares
from lmjax.data.rows import PlannedRows, Rows, StreamRows
from lmjax.data.store import Store
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.errors import UserError
from lmjax.train.console import logger
from lmjax.train.setup import Program, make_ids


@dataclass(frozen=True)
class Stores:
    """Train and held-out text on disk, or labelled examples, and the tokenizer of both.

    Of a mixture there is a train store for each source, and a held-out one unless all are held out
    together, by `data.eval_path`.
    """

    tokenizer: AnyTokenizer
    train: tuple[Store, ...] | tuple[LabelledSet, ...]
    held_out: tuple[Store, ...] | tuple[LabelledSet, ...]

    def labels(self, config: Config) -> tuple[str, ...]:
        """Names of the classes of an objective that has some, by the examples of training.

        Raises:
          UserError: an example has no label.
        """
        if not objectives.is_labelled(config):
            return ()
        records = (record for examples in self.train for record in examples.records)
        return objectives.labels(config, records)


def open_stores(config: Config) -> Stores:
    """Opens what `data.path` or `data.sources` names; raw text is tokenised once, with a bar.

    Raises:
      UserError: as `cache.ensure_store` and `labelled.read`, or the stores of a mixture have
        different tokenizers.
    """
    if objectives.is_labelled(config):
        return _open_labelled(config)
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


def _open_labelled(config: Config) -> Stores:
    """Reads labelled examples; where none are given to be held out, a part of each file is."""
    data, tokenizer_path = config.data, config.tokenizer.path
    fields, known = dict(data.fields), objectives.field_names(config)
    for name in fields:
        if name not in known:
            raise UserError(
                f"config.data.fields names {name!r}, which examples of {config.objective.name} do "
                f"not have; they have {', '.join(known)}"
            )
    sets = [labelled.read(path, "train", fields, tokenizer_path) for path in data.paths]
    if data.eval_path is None:
        sides = [labelled.hold_out(examples, data.eval_fraction) for examples in sets]
        train, held_out = zip(*sides, strict=True)
    else:
        train = tuple(sets)
        held_out = (labelled.read(data.eval_path, "eval", fields, tokenizer_path),)
        if held_out[0].manifest_sha256 in {examples.manifest_sha256 for examples in train}:
            raise UserError(
                f"{data.eval_path}: evaluates on what it trains on; name other examples in "
                "data.eval_path, or leave it unset to hold a part of data.path out"
            )
    return Stores(tokenizer_lib.load(tokenizer_path), train, held_out)


def make_mixture(config: Config, stores: Stores) -> Mixture:
    """The sources' shares of the rows, as the config says."""
    weights = config.data.weights or [
        len(store.records) if isinstance(store, LabelledSet) else store.num_tokens
        for store in stores.train
    ]
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

    def amounts(self) -> dict[str, Any]:
        """What a checkpoint tells of its data, for a model card."""
        found: dict[str, Any] = {"shares": self.shares} if self.shares else {}
        if isinstance(self.stores.train[0], LabelledSet):
            sides = {"train": self.stores.train, "eval": self.stores.held_out}
            found["examples"] = {
                side: sum(len(examples.records) for examples in sets)
                for side, sets in sides.items()
            }
        return found

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
    config: Config,
    stores: Stores,
    objective: Objective | LabelledObjective,
    eval_objective: Objective | LabelledObjective,
) -> Data:
    """The rows of the stores, and the tables of the unigram baseline.

    Of labelled examples that baseline knows how frequent each class is, and no more.

    Raises:
      UserError: a store holds no text, or the embedding has fewer rows than there are ids.
    """
    rows_V, tokenizer = make_ids(config, stores.tokenizer).num_rows, stores.tokenizer
    mixture = make_mixture(config, stores)
    train_rows = tuple(make_rows(config, store, objective) for store in stores.train)
    eval_rows = tuple(make_rows(config, store, eval_objective) for store in stores.held_out)
    batches = _train_batches(config, train_rows, mixture, np.arange(0))
    num_classes = objective.num_classes if objectives.is_labelled(config) else rows_V
    counts = pipeline.count_targets(batches, num_classes)
    unigram, content_unigram = counts.log_probs()
    num_bytes = np.zeros(num_classes, np.float32)
    if num_classes == rows_V:
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


def make_rows(
    config: Config, store: Store | LabelledSet, objective: Objective | LabelledObjective
) -> Rows:
    """The rows of a store, as `data.packing` says; of labelled examples one each.

    Raises:
      UserError: there is not a single token to predict, the objective has other rows, or an
        example is not what it takes.
    """
    data = config.data
    if isinstance(store, LabelledSet):
        return _example_rows(config, store, objective)
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


def _example_rows(config: Config, store: LabelledSet, objective: LabelledObjective) -> ExampleRows:
    encoder = TextEncoder(tokenizer_lib.load(store.tokenizer_path))
    limits = {"data.seq_len": config.data.seq_len}
    if objective.writes is not None:
        limits["objective.target_length"] = objective.writes
    cut = config.objective.truncate
    return labelled.rows(store, objective, encoder, limits, truncate=cut, log=logger.info)
