"""A curation as stages that the engine's executors run: on this machine, on Ray, on SLURM.

Tasks follow from the input alone, so that the output does, too; workers only share them out. A task
is done once it is sealed (`cleaning.seal`), which comes after everything else that it writes: the
engine's own mark would also be there of a task that met a full disk.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import loguru
import multiprocess
import tqdm
from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import exact_dedup, minhash
from datatrove.utils.stats import PipelineStats

from lmjax.curate import cleaning, keeping, ledger, reading
from lmjax.curate.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """Steps that each of so many tasks goes through; the next stage waits for all."""

    name: str
    pipeline: list[PipelineStep]
    tasks: int


def build(
    recipe: Recipe, shards: Sequence[reading.Shard], folder: str, head: dict[str, Any]
) -> list[Stage]:
    """The stages of a curation, in order."""
    tasks = len(shards)
    found = [Stage("clean", [cleaning.Clean(recipe, shards, folder)], tasks)]
    documents, output = keeping.Documents(folder), keeping.Output(recipe, folder)
    filters: list[PipelineStep] = []
    plain: list[PipelineStep] = []  # the same without a word of what goes
    if recipe.has("dedup"):
        duplicates = keeping.Duplicates(recipe, folder)
        sealed = lambda name, step: keeping.Sealed(name, step, folder)
        found += [
            Stage(
                "exact_signatures",
                [documents, sealed("exact_signatures", duplicates.exact_signature())],
                tasks,
            ),
            Stage("exact_find", [sealed("exact_find", duplicates.exact_find())], 1),
            Stage(
                "near_signatures",
                [
                    documents,
                    duplicates.exact_filter(),
                    sealed("near_signatures", duplicates.near_signature()),
                ],
                tasks,
            ),
            Stage(
                "near_buckets",
                [sealed("near_buckets", duplicates.near_buckets())],
                duplicates.num_buckets,
            ),
            Stage("near_cluster", [sealed("near_cluster", duplicates.near_cluster())], 1),
        ]
        filters += [
            duplicates.exact_filter(keeping.Drop(keeping.EXACT, output)),
            duplicates.near_filter(keeping.Drop(keeping.NEAR, output)),
        ]
        plain += [duplicates.exact_filter(), duplicates.near_filter()]
    if recipe.max_source_bytes is not None or recipe.max_language_bytes is not None:
        found += [
            Stage("sizes", [documents, *plain, keeping.Sizes(recipe, folder)], tasks),
            Stage("caps", [keeping.Caps(recipe, folder, tasks)], 1),
        ]
        filters.append(keeping.CapFilter(recipe, folder, output))
    found.append(Stage("keep", [documents, *filters, keeping.Keep(output)], tasks))
    of = {stage.name: stage.tasks for stage in found}
    found.append(Stage("finish", [ledger.Finish(recipe, folder, of, head)], 1))
    return found


class _Tasks:
    """What executors of all kinds have here: seals for completions, and no logs of their own."""

    stage: str
    folder: str

    def is_rank_completed(self, rank: int) -> bool:
        if self.stage == "finish":
            return os.path.exists(os.path.join(self.folder, ledger.FILE))
        return cleaning.sealed(self.folder, self.stage, rank) is not None

    def get_incomplete_ranks(
        self, ranks: Iterable[int] | None = None, skip_completed: bool | None = None
    ) -> list[int]:
        all_of_them = range(self.world_size) if ranks is None else ranks
        return [rank for rank in all_of_them if not self.is_rank_completed(rank)]

    def mark_rank_as_completed(self, rank: int) -> None:
        """It has done so itself."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        quiet()
        if not self.is_rank_completed(rank):
            data = None
            for step in self.pipeline:
                data = step(data, rank, self.world_size)
            deque(data or (), maxlen=0)
        stats = PipelineStats()
        with self.logging_dir.open(f"stats/{rank:05d}.json", "w") as stream:  # which Ray's adds up
            stats.save_to_disk(stream)
        return stats


class _Local(_Tasks, LocalPipelineExecutor):
    def run(self) -> None:
        """The engine's own forks this process, which must not be where JAX is at work."""
        ranks = self.get_incomplete_ranks()
        if self.workers == 1:
            for rank in ranks:
                one = copy(self)
                one.pipeline = deepcopy(self.pipeline)
                one._run_for_rank(rank)
            return
        with multiprocess.get_context("forkserver").Pool(self.workers) as pool:
            for _ in pool.imap_unordered(self._run_for_rank, ranks):
                pass


class _Ray(_Tasks, RayPipelineExecutor):
    pass


class _Slurm(_Tasks, SlurmPipelineExecutor):
    def launch_merge_stats(self) -> None:
        """There are tallies instead."""


EXECUTORS = ("local", "ray", "slurm")


def executor(
    kind: str, stage: Stage, folder: str, workers: int, before: PipelineExecutor | None, **more: Any
) -> PipelineExecutor:
    """Runs a stage by `run()`; on SLURM it queues it behind the one before."""
    common: dict[str, Any] = {
        "pipeline": stage.pipeline,
        "tasks": stage.tasks,
        "logging_dir": os.path.join(folder, "work", "logs", stage.name),
        "workers": min(workers, stage.tasks),
    }
    if kind == "local":
        made = _Local(**common)
    elif kind == "ray":
        made = _Ray(**common, **more)
    else:
        common |= {
            "workers": workers,
            "depends": before,
            "job_name": f"curate_{stage.name}",
            "slurm_logs_folder": os.path.join(folder, "work", "logs", stage.name),
        }
        activate = os.path.join(sys.prefix, "bin", "activate")
        if os.path.exists(activate):
            common["venv_path"] = activate
        made = _Slurm(**common, **more)
    made.stage, made.folder = stage.name, folder
    return made


@contextlib.contextmanager
def cluster(kind: str) -> Iterator[None]:
    """Ray's, the one of RAY_ADDRESS or a new one on this machine; nothing for other executors."""
    if kind != "ray":
        yield
        return
    import ray

    ray.init(logging_level="ERROR", log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def quiet() -> None:
    """The engine's news and bars go nowhere: the tool has its own."""
    loguru.logger.remove()
    loguru.logger.add(sys.stderr, level="CRITICAL")
    for module in (exact_dedup, minhash):
        module.tqdm = partial(tqdm.tqdm, disable=True)
