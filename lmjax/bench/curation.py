"""Curation beside a chain of the engine's own filters, on the same documents.

Both read one JSONL file and write what they keep and drop as `.jsonl.zst`: repair, language,
quality, masks, exact and near duplicates. The engine has no offline way to tell a language, so its
chain asks the same identifier; and its rule on alphabetic words is put right in the chain, too,
since it would drop most documents before later filters saw them. What differs is how the filters
are run, the reader, and all that the ledger asks for.

Each block is a process of its own, since what one side has learnt of words would help the other;
blocks alternate, and of their CPU seconds, imports left out, the medians count.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import exact_dedup, minhash
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

from lmjax.curate import curation, reading, stages
from lmjax.curate.recipe import STEPS, Recipe
from lmjax.curate.text_steps import Language
from lmjax.errors import UserError

_STEPS = tuple(step for step in STEPS if step != "extract")  # of pages, not of text


@dataclass(frozen=True)
class Curation:
    """What a curation of so many documents and bytes of text takes.

    Attributes:
      documents, bytes: of the input.
      seconds, engine_seconds: CPU seconds, medians over blocks.
      blocks: how many of each.
      filters: {name: (seconds, documents, bytes)} of one of our runs.
      kept, engine_kept: documents.
    """

    documents: int
    bytes: int
    seconds: float
    engine_seconds: float
    blocks: int
    filters: dict[str, tuple[float, int, int]]
    kept: int
    engine_kept: int

    @property
    def ratio(self) -> float:
        return self.engine_seconds / self.seconds

    def as_dict(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "cpu_seconds": self.seconds,
            "engine_cpu_seconds": self.engine_seconds,
            "blocks": self.blocks,
            "ratio": self.ratio,
            "kept": self.kept,
            "engine_kept": self.engine_kept,
            "filters": {
                name: {"seconds": seconds, "documents": documents, "bytes": size}
                for name, (seconds, documents, size) in self.filters.items()
            },
        }


def measure(
    files: Sequence[str], seconds: float = 60.0, *, documents: int = 1200, text_key: str = "text"
) -> Curation:
    """Times both, by turns, on the first documents of some files.

    Args:
      files: as `find_files` gives them.
      seconds: how long, about; each has two turns at least.
      documents: how many, at most.
      text_key: field of the text.

    Raises:
      UserError: there is no text in them.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, count, size = _sample(files, folder, documents, text_key)
        ours: list[float] = []
        theirs: list[float] = []
        began = time.monotonic()
        while len(ours) < 2 or time.monotonic() - began < seconds:
            output = os.path.join(folder, "output")
            took, ledger = _apart(_ours, source, output)
            ours.append(took)
            shutil.rmtree(output)
            took, engine_kept = _apart(_engine, source, output)
            theirs.append(took)
            shutil.rmtree(output)
    times = ledger["times"]
    return Curation(
        documents=count,
        bytes=size,
        seconds=statistics.median(ours),
        engine_seconds=statistics.median(theirs),
        blocks=len(ours),
        filters={name: (of["seconds"], of["documents"], of["bytes"]) for name, of in times.items()},
        kept=ledger["kept"]["documents"],
        engine_kept=engine_kept,
    )


def _apart(work: Callable[[str, str], Any], source: str, folder: str) -> tuple[float, Any]:
    """CPU seconds and result of work in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_timed, work, source, folder).result()


def _timed(work: Callable[[str, str], Any], source: str, folder: str) -> tuple[float, Any]:
    stages.quiet()
    began = time.process_time()
    found = work(source, folder)
    return time.process_time() - began, found


def _ours(source: str, folder: str) -> dict[str, Any]:
    return curation.curate([source], folder, Recipe(steps=_STEPS), workers=1)


def _sample(
    files: Sequence[str], folder: str, documents: int, text_key: str
) -> tuple[str, int, int]:
    """Writes the first documents to a file; returns it, how many they are, and their bytes."""
    source, count, size = os.path.join(folder, "sample.jsonl"), 0, 0
    records = itertools.chain.from_iterable(
        reading.read(shard, text_key, "file") for shard in reading.shards(files)
    )
    with open(source, "w", encoding="utf-8") as stream:
        for record in records:
            if record.wrong is not None:
                continue
            stream.write(json.dumps({"text": record.text, "id": str(count)}) + "\n")
            count, size = count + 1, size + len(record.text.encode(errors="replace"))
            if count == documents:
                break
    if not count:
        raise UserError(f"--input: no text in {files[0]}; give files with a field {text_key!r}")
    return source, count, size


class _LanguageFilter(BaseFilter):
    name = "language"

    def __init__(self) -> None:
        super().__init__()
        self._language = Language((), 0.5, None)

    def filter(self, doc: Document) -> bool:
        return self._language(doc) is None


def _engine(source: str, folder: str) -> int:
    """The engine's chain; returns how many documents it keeps."""
    at = lambda *names: os.path.join(folder, *names)
    dropped = lambda rule: JsonlWriter(at("dropped", rule), compression="zstd")
    clean = lambda: JsonlReader(at("clean"))
    exact = exact_dedup.ExactDedupConfig(content_getter=lambda document: document.text)
    of = Recipe().minhash
    near = minhash.MinhashConfig(of.n_grams, of.num_buckets, of.hashes_per_bucket)
    for name in ("exact", "near"):
        for part in ("signatures", "pairs", "found"):
            os.makedirs(at(name, part))
    _run(
        JsonlReader(os.path.dirname(source), glob_pattern=os.path.basename(source)),
        FTFYFormatter(),
        _LanguageFilter(),
        GopherRepetitionFilter(exclusion_writer=dropped("repetition")),
        GopherQualityFilter(max_non_alpha_words_ratio=None, exclusion_writer=dropped("gopher")),
        C4QualityFilter(filter_no_terminal_punct=False, exclusion_writer=dropped("c4")),
        FineWebQualityFilter(exclusion_writer=dropped("fineweb")),
        PIIFormatter(),
        JsonlWriter(at("clean"), compression="zstd"),
    )
    _run(clean(), exact_dedup.ExactDedupSignature(at("exact", "signatures"), exact))
    _run(exact_dedup.ExactFindDedups(at("exact", "signatures"), at("exact", "found"), exact))
    unique = exact_dedup.ExactDedupFilter
    _run(
        clean(),
        unique(at("exact", "found"), exact),
        minhash.MinhashDedupSignature(at("near", "signatures"), near),
    )
    folders = at("near", "signatures"), at("near", "pairs")
    buckets = minhash.MinhashDedupBuckets(*folders, config=near)
    _run(buckets, tasks=near.num_buckets)
    _run(minhash.MinhashDedupCluster(at("near", "pairs"), at("near", "found"), near))
    kept = JsonlWriter(at("kept"), compression="zstd")
    _run(
        clean(),
        unique(at("exact", "found"), exact, dropped("exact")),
        minhash.MinhashDedupFilter(at("near", "found"), dropped("near")),
        kept,
    )
    return sum(1 for _ in JsonlReader(at("kept"))(None, 0, 1))


def _run(*pipeline: PipelineStep, tasks: int = 1) -> None:
    with tempfile.TemporaryDirectory() as logs:
        executor = LocalPipelineExecutor(
            list(pipeline), tasks=tasks, logging_dir=logs, skip_completed=False
        )
        for rank in range(tasks):
            data = None
            for step in executor.pipeline:
                data = step(data, rank, tasks)
            for _ in data or ():
                pass
