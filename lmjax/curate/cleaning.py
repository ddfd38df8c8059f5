"""The first stage: each record is read, judged by one step after the other, and kept or dropped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from lmjax.curate import blocking, quality, reading, writing
from lmjax.curate.recipe import Recipe
from lmjax.curate.tally import Amount, Measure, Tally, Time
from lmjax.curate.text_steps import UNKNOWN, Extract, Language, Mask, Repair

UNREADABLE = "unreadable"

_READABLE = ("extract", "repair", "language")  # after these a document is what a reader sees


def judges(recipe: Recipe) -> list[Any]:
    """The judges of a recipe, in order; those of lists and models after the language is known."""
    found: list[Any] = []
    if recipe.has("extract"):
        found.append(Extract())
    if recipe.has("repair"):
        found.append(Repair())
    if recipe.has("language"):
        found.append(Language(recipe.languages, recipe.language_threshold, recipe.language_model))
    if recipe.block_urls or recipe.bundled_urls:
        urls = blocking.read_list(recipe.block_urls) if recipe.block_urls else ()
        found.append(blocking.BlockUrls(urls, recipe.bundled_urls))
    if recipe.block_words:
        found.append(blocking.BlockWords(blocking.read_list(recipe.block_words)))
    if recipe.has("quality"):
        found += [quality.Quality(family) for family in quality.FAMILIES]
    if recipe.classifier:
        found.append(
            blocking.Classifier(
                recipe.classifier, recipe.classifier_label, recipe.classifier_threshold
            )
        )
    if recipe.decontaminate:
        found.append(blocking.Decontaminate(recipe.decontaminate, recipe.decontaminate_words))
    if recipe.has("pii"):
        found.append(Mask())
    return found


class Clean(PipelineStep):
    """Reads a shard for each rank; writes what stays, what goes by rule, and a tally.

    What stays, in `WORK/clean/RANK.jsonl.zst`, has `text`, `id` and `meta`: `fields` of the input,
    `source` and `language`.
    """

    name, type = "clean", "lmjax"

    def __init__(self, recipe: Recipe, shards: Sequence[reading.Shard], folder: str) -> None:
        super().__init__()
        self._recipe, self._shards, self._folder = recipe, list(shards), folder
        self._judges = judges(recipe)
        self._terms = blocking.Phrases(recipe.terms)
        self._amount = Measure(recipe.tokenizer)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        shard, recipe = self._shards[rank], self._recipe
        tally, lines = Tally(), writing.Lines(self._folder)
        signs = Signs(self._folder, rank)
        try:
            with closing(reading.read(shard, recipe.text_key, recipe.text_split)) as records:
                for record in records:
                    self._one(record, shard, rank, tally, lines)
                    signs.add(len(record.text))
            for judge in self._judges:
                if masked := getattr(judge, "masked", 0):
                    tally.counts["masked"] = tally.counts.get("masked", 0) + masked
            files = lines.publish()
        finally:
            lines.abandon()
            for judge in self._judges:
                getattr(judge, "close", lambda: None)()
        seal(self._folder, "clean", rank, tally, files)

    def _one(
        self,
        record: reading.Record,
        shard: reading.Shard,
        rank: int,
        tally: Tally,
        lines: writing.Lines,
    ) -> None:
        source = record.fields.get(self._recipe.source_key)
        meta = {"fields": record.fields, "language": UNKNOWN, "url": ""}
        meta["source"] = str(source) if isinstance(source, str | int) else shard.name
        document = Document(record.text, record.id, metadata=meta)
        came = self._amount(document.text)
        tally.came.add(came)
        rule, balanced = None, False
        if record.wrong is not None:
            rule, amount = f"{UNREADABLE}_{record.wrong}", came
        for judge in self._judges if rule is None else ():
            if not balanced and judge.name not in _READABLE:
                self._balance(tally.before, document)
                balanced = True
            rule = self._judge(judge, document, tally)
            if rule is not None:
                amount = self._amount(document.text)
                break
        if not balanced and record.wrong is None:
            self._balance(tally.before, document)
        if self._recipe.has("quality") and record.wrong is None:
            language = meta["language"]
            if language not in tally.left_out and (left_out := quality.left_out(language)):
                tally.left_out[language] = left_out
        if rule is None:
            tally.kept.add(self._amount(document.text))
            lines.write(f"work/clean/{rank:05d}", packed(document))
            return
        tally.drop(rule, amount, document.id, document.text)
        lines.write(f"dropped/{rule}/{rank:05d}", dropped(document, rule))

    def _judge(self, judge: Any, document: Document, tally: Tally) -> str | None:
        size, began = len(document.text), time.perf_counter()
        rule = judge(document)
        of = tally.times.setdefault(judge.name, Time())
        of.seconds += time.perf_counter() - began
        of.documents += 1
        of.bytes += size
        return rule

    def _balance(self, kinds: dict[str, dict[str, Amount]], document: Document) -> None:
        balance(kinds, document, self._amount(document.text), self._terms)


def balance(
    kinds: dict[str, dict[str, Amount]],
    document: Document,
    amount: Amount,
    terms: blocking.Phrases,
) -> None:
    """Counts a document for its source, its language and the terms that it has."""
    meta = document.metadata
    named = {"source": {meta["source"]}, "language": {meta["language"]}}
    named["term"] = set(terms.found(document.text)) if terms.any else set()
    for kind, names in named.items():
        for name in sorted(names):
            kinds.setdefault(kind, {}).setdefault(name, Amount()).add(amount)


def packed(document: Document) -> dict[str, Any]:
    """A document between stages, as a line."""
    meta = {name: document.metadata[name] for name in ("fields", "source", "language")}
    return {"text": document.text, "id": document.id, "meta": meta}


def unpacked(line: dict[str, Any]) -> Document:
    return Document(line["text"], line["id"], metadata=line["meta"])


def kept(document: Document) -> dict[str, Any]:
    """A document in the end: text, id, and the input's other fields."""
    return {"text": document.text, "id": document.id, **document.metadata["fields"]}


def dropped(document: Document, rule: str) -> dict[str, Any]:
    return {**kept(document), "rule": rule}


class Signs:
    """Signs of progress: how many characters a task has read, in a file, every few seconds."""

    SECONDS = 2.0

    def __init__(self, folder: str, rank: int) -> None:
        self._path = os.path.join(folder, "work", "progress", f"{rank:05d}")
        self._done, self._last = 0, time.monotonic()

    def add(self, characters: int) -> None:
        self._done += characters
        if (now := time.monotonic()) - self._last < self.SECONDS:
            return
        self._last = now
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with open(self._path, "w") as stream:
            stream.write(str(self._done))


def seal_path(folder: str, stage: str, rank: int) -> str:
    return os.path.join(folder, "work", "seals", stage, f"{rank:05d}.json")


def seal(folder: str, stage: str, rank: int, tally: Tally, files: dict[str, str]) -> None:
    """Says, last of all, that a task is done: its files are there, with these SHA-256s."""
    path = seal_path(folder, stage, rank)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    content = json.dumps({"tally": tally.as_dict(), "files": files})
    writing.files_lib.write_whole(path, content.encode())


def sealed(folder: str, stage: str, rank: int) -> dict[str, Any] | None:
    """What a task said when it was done; None: it is not, or a file of it is gone."""
    try:
        with open(seal_path(folder, stage, rank), "rb") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return None
    there = all(os.path.exists(os.path.join(folder, name)) for name in found["files"])
    return found if there else None


def documents(folder: str, rank: int) -> Iterator[Document]:
    """What the first stage kept of a rank."""
    path = os.path.join(folder, "work", "clean", f"{rank:05d}.jsonl.zst")
    for line in writing.read(path):
        yield unpacked(line)
