"""The stages after cleaning: duplicates are found, and what stays of the documents is written.

Exact duplicates first, by a hash of the text; then near ones among what is left, by MinHash
(Broder 1997). Both are the engine's, on disk, for any number of documents. Of exact ones that stays
which the engine finds first, of near ones the first that was read: both depend on the texts and
their order alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
    MinhashDedupBuckets,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig
from datatrove.pipeline.dedup.minhash import MinhashConfig

from lmjax.curate import blocking, cleaning, writing
from lmjax.curate import near as near_lib
from lmjax.curate.recipe import Recipe
from lmjax.curate.tally import Measure, Tally, Time, order
from lmjax.curate.words import Words

EXACT, NEAR = "exact_duplicate", "near_duplicate"
SOURCE_CAP, LANGUAGE_CAP = "cap_source", "cap_language"


class Documents(PipelineStep):
    """What the first stage kept of a rank."""

    name, type = "documents", "lmjax"

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        yield from cleaning.documents(self._folder, rank)


class Sealed(PipelineStep):
    """A last step of the engine's, which counts as done once it has come to its end."""

    type = "lmjax"

    def __init__(self, stage: str, step: PipelineStep, folder: str) -> None:
        super().__init__()
        self.name, self._step, self._folder = stage, step, folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        began = time.perf_counter()
        for _ in self._step(data, rank, world_size) or ():
            pass
        tally = Tally(times={self.name: Time(time.perf_counter() - began)})
        cleaning.seal(self._folder, self.name, rank, tally, {})


class Duplicates:
    """The engine's steps for one curation, and where they leave what they find."""

    def __init__(self, recipe: Recipe, folder: str) -> None:
        self._work = os.path.join(folder, "work")
        self._exact = ExactDedupConfig(content_getter=_text)
        near = recipe.minhash
        self.num_buckets = near.num_buckets
        self._min_similarity = near.min_similarity
        self._near = MinhashConfig(near.n_grams, near.num_buckets, near.hashes_per_bucket)

    def _at(self, name: str) -> str:
        path = os.path.join(self._work, name)
        os.makedirs(path, exist_ok=True)  # the engine reads a folder that nothing was written to
        return path

    def exact_signature(self) -> PipelineStep:
        return ExactDedupSignature(self._at("exact/signatures"), self._exact)

    def exact_find(self) -> PipelineStep:
        return ExactFindDedups(self._at("exact/signatures"), self._at("exact/found"), self._exact)

    def exact_filter(self, writer: Any = None) -> PipelineStep:
        return ExactDedupFilter(self._at("exact/found"), self._exact, writer)

    def near_signature(self) -> PipelineStep:
        return MinhashDedupSignature(self._at("near/signatures"), self._near, Words())

    def near_buckets(self) -> PipelineStep:
        found = self._at("near/signatures"), self._at("near/pairs")
        return MinhashDedupBuckets(*found, config=self._near)

    def near_cluster(self) -> PipelineStep:
        at = [self._at(f"near/{name}") for name in ("signatures", "pairs", "clusters", "found")]
        return near_lib.Cluster(*at, self._near, self._min_similarity)

    def near_filter(self, writer: Any = None) -> PipelineStep:
        return MinhashDedupFilter(self._at("near/found"), writer)


def _text(document: Document) -> str:
    return document.text


class Sizes(PipelineStep):
    """What caps go by: order, source, language and bytes of each document that is no duplicate."""

    name, type = "sizes", "lmjax"

    def __init__(self, recipe: Recipe, folder: str) -> None:
        super().__init__()
        self._seed, self._folder = recipe.seed, folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        lines = writing.Lines(self._folder)
        try:
            for document in data:
                line = {
                    "order": order(document.id, self._seed),
                    "source": document.metadata["source"],
                    "language": document.metadata["language"],
                    "bytes": len(document.text.encode(errors="replace")),
                }
                lines.write(f"work/sizes/{rank:05d}", line)
            files = lines.publish()
        finally:
            lines.abandon()
        cleaning.seal(self._folder, "sizes", rank, Tally(), files)


class Caps(PipelineStep):
    """Finds, for each source and language, the order from which on documents are too many."""

    name, type = "caps", "lmjax"

    def __init__(self, recipe: Recipe, folder: str, tasks: int) -> None:
        super().__init__()
        self._recipe, self._folder, self._tasks = recipe, folder, tasks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        found = [
            line
            for rank in range(self._tasks)
            for line in writing.read(
                os.path.join(self._folder, "work", "sizes", f"{rank:05d}.jsonl.zst")
            )
        ]
        found.sort(key=lambda line: line["order"])
        limits: dict[str, dict[str, str]] = {}
        for kind in ("source", "language"):
            most = getattr(self._recipe, f"max_{kind}_bytes")
            limits[kind] = {} if most is None else _limits(found, kind, most)
            found = [line for line in found if _within(limits[kind], line[kind], line["order"])]
        path = caps_path(self._folder)
        writing.files_lib.write_whole(path, json.dumps(limits).encode())
        files = {os.path.relpath(path, self._folder): ""}
        cleaning.seal(self._folder, "caps", 0, Tally(), files)


def _limits(found: list[dict[str, Any]], kind: str, most: int) -> dict[str, str]:
    """Name -> order of the first document with which its bytes are more than `most`."""
    limits: dict[str, str] = {}
    done: dict[str, int] = {}
    for line in found:
        name = line[kind]
        done[name] = done.get(name, 0) + line["bytes"]
        if done[name] > most:
            limits.setdefault(name, line["order"])
    return limits


def _within(limits: dict[str, str], name: str, place: str) -> bool:
    return name not in limits or place < limits[name]


def caps_path(folder: str) -> str:
    return os.path.join(folder, "work", "caps.json")


class Output:
    """The last stage's files and tally of one task; shared by the steps that drop and keep."""

    def __init__(self, recipe: Recipe, folder: str) -> None:
        self._recipe, self._folder = recipe, folder
        self._amount = Measure(recipe.tokenizer)
        self._terms = blocking.Phrases(recipe.terms)
        self._tally, self._lines = Tally(), writing.Lines(folder)

    def drop(self, rule: str, document: Document, rank: int) -> None:
        self._tally.drop(rule, self._amount(document.text), document.id, document.text)
        self._lines.write(f"dropped/{rule}/{rank:05d}", cleaning.dropped(document, rule))

    def keep(self, document: Document, rank: int) -> None:
        amount = self._amount(document.text)
        self._tally.kept.add(amount)
        cleaning.balance(self._tally.after, document, amount, self._terms)
        self._lines.write(f"kept/{rank:05d}", cleaning.kept(document))

    def seal(self, rank: int) -> None:
        cleaning.seal(self._folder, "keep", rank, self._tally, self._lines.publish())

    def abandon(self) -> None:
        self._lines.abandon()


class Drop:
    """A writer of what a step of the engine's leaves out."""

    def __init__(self, rule: str, output: Output) -> None:
        self._rule, self._output = rule, output

    def __enter__(self) -> Drop:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def write(self, document: Document, rank: int = 0) -> None:
        self._output.drop(self._rule, document, rank)


class CapFilter(PipelineStep):
    """Drops what comes behind the limits that `Caps` found."""

    name, type = "cap", "lmjax"

    def __init__(self, recipe: Recipe, folder: str, output: Output) -> None:
        super().__init__()
        self._seed, self._folder, self._output = recipe.seed, folder, output

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        with open(caps_path(self._folder), "rb") as stream:
            limits = json.load(stream)
        for document in data:
            place = order(document.id, self._seed)
            for kind, rule in (("source", SOURCE_CAP), ("language", LANGUAGE_CAP)):
                if not _within(limits[kind], document.metadata[kind], place):
                    self._output.drop(rule, document, rank)
                    break
            else:
                yield document


class Keep(PipelineStep):
    """Writes what is left, and seals the task."""

    name, type = "keep", "lmjax"

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        try:
            for document in data:
                self._output.keep(document, rank)
            self._output.seal(rank)
        finally:
            self._output.abandon()
