"""Whether data and workdirs are what they should be. They are only read."""

from __future__ import annotations

import itertools
import math
import os
import re
import time
from collections import Counter

from lmjax import paths
from lmjax.config import Config
from lmjax.data import cache, progress, store, verify
from lmjax.data import files as files_lib
from lmjax.data import text as text_lib
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.doctor.report import Section
from lmjax.errors import UserError
from lmjax.families import weights
from lmjax.train import metrics
from lmjax.train.console import count, size
from lmjax.train.copied_checkpoints import reading

_READ_UP_TO = 2 * 2**30  # bytes that are read whole, some 5 s; of more only names and sizes
_FIRST_DOCUMENTS = 1000
_BAD = ("bad_utf8", "bad_json", "no_text", "too_long")


def data(path: str, *, text_key: str = "text", text_split: str = "file") -> Section:
    """A prepared store, checked by its SHA-256s, or the first documents of raw text."""
    if paths.is_remote(path) and cache.is_prepared(path):
        return _remote_store(path)
    folder = os.path.expanduser(path)
    if store.is_store(folder):
        return _store(path)
    if os.path.isdir(folder) and any(name.endswith(".arrayrecord") for name in os.listdir(folder)):
        raise UserError(
            f"{path}: an unfinished store; run tools/prepare_data.py with the same flags again"
        )
    return _text(path, text_key, text_split)


def _store(path: str) -> Section:
    section, (manifest, _) = Section(f"store {path}"), store.read_manifest(path)
    splits = {split: store.Store.open(path, split) for split in manifest["splits"]}
    for name, split in splits.items():
        said = f"{split.num_documents:,} documents, {count(split.num_tokens)} tokens"
        section.add(name, said)
    section.add("tokenizer", f"{manifest['tokenizer']['vocab_size']:,} ids")
    num_bytes = sum(e["bytes"] for s in manifest["splits"].values() for e in store.split_files(s))
    if num_bytes <= _READ_UP_TO:
        began = time.monotonic()
        verify.verify(path)
        section.add("verified", f"{size(num_bytes)}, every SHA-256, {_since(began)}")
    else:
        section.add("verified", f"names and sizes only: {size(num_bytes)} are too much for a look")
    return section


def _remote_store(url: str) -> Section:
    section = Section(f"store {url}")
    file = paths.join(url, store.MANIFEST)
    manifest, _ = store.parse_manifest(paths.read_bytes(file) or b"", file)
    for name, split in manifest["splits"].items():
        section.add(
            name, f"{split['num_documents']:,} documents, {count(split['num_tokens'])} tokens"
        )
    section.add("verified", "the manifest only; files are when they are fetched")
    return section


def _text(path: str, text_key: str, text_split: str) -> Section:
    section, counts = Section(f"text {path}"), Counter()
    files = files_lib.find_files(path)
    section.add("files", f"{len(files)}, {size(sum(map(paths.size, files)))} on disk")
    documents = text_lib.read_documents(
        files, text_key=text_key, text_split=text_split, counts=counts
    )
    lengths = [len(d.text) for d in itertools.islice(documents, _FIRST_DOCUMENTS)]
    skipped = progress.skipped_line(counts, ", skipped: {}")
    section.add("first documents", f"{len(lengths)}, {count(sum(lengths))} characters{skipped}")
    if not lengths:
        section.problems.append(
            f"{path}: no documents{skipped}; give UTF-8 text, for .jsonl one JSON object per line"
        )
    elif sum(counts[reason] for reason in _BAD) > 0.1 * len(lengths):
        section.problems.append(
            f"{path}: more than a tenth of the first records are left out{skipped}; mend them, or "
            "set data.text_key and data.text_split"
        )
    return section


def run(path: str, config: Config) -> Section:
    """What a workdir holds: its run, its checkpoints, how its last command ended."""
    section = Section(f"workdir {path}")
    model = f"{config.family} {config.model.preset or ''}".strip()
    section.add("run", f"{model}, {config.objective.name}")
    section.problems += [p for p in (_progress(section, path, config), _last_error(path)) if p]
    try:
        tokenizer = tokenizer_lib.load(paths.join(path, "tokenizer"))
        section.add("tokenizer", f"{tokenizer.vocab_size:,} ids, SHA-256 {tokenizer.sha256[:12]}")
        _checkpoints(section, path, config)
    except UserError as error:
        section.problems.append(str(error))
    return section


def _progress(section: Section, path: str, config: Config) -> str | None:
    """Adds how far the run has come; returns what is wrong with it."""
    if paths.is_remote(path):
        return None
    rows = {row["split"]: row for row in metrics.read(os.path.join(path, "metrics.jsonl"))}
    for split, row in rows.items():
        said = f"step {row['step']:,} of {config.train.num_steps:,}, loss {row['loss']:.4f}"
        section.add(split, said)
        if not math.isfinite(row["loss"]):
            return (
                f"{path}: the {split} loss is {row['loss']} at step {row['step']}; lower "
                "optimizer.learning_rate in another --workdir"
            )
    return None


def _last_error(path: str) -> str | None:
    """What ended the last command in a workdir, where that was an error."""
    file = os.path.join(path, "lmjax.log")
    if paths.is_remote(path) or not os.path.isfile(file):
        return None
    with open(file, encoding="utf-8", errors="replace") as stream:
        records = re.split(r"^(?=\d{4}-\d\d-\d\d \S+ [A-Z]+ )", stream.read(), flags=re.MULTILINE)
    last = records[-1].strip()
    if not re.match(r"\S+ \S+ ERROR ", last):
        return None
    said = last.split(" ERROR ", 1)[1]
    if "\n" not in said:
        return f"the last command in {path} ended with: {said}"
    why = said.splitlines()[-1][:300]
    return f"the last command in {path} ended with {why}; its traceback is in {path}/lmjax.log"


def _checkpoints(section: Section, path: str, config: Config) -> None:
    folder = paths.join(path, "checkpoints")
    with reading(folder) as (checkpoints, newest):
        steps = ", ".join(f"{step:,}" for step in checkpoints.steps())
        section.add("checkpoints", f"{steps}: complete")
        meta = checkpoints.meta(newest)
        section.add("made by", ", ".join(f"{k} {v}" for k, v in meta["versions"].items()))
        here = os.path.join(folder, str(newest))
        num_bytes = 0
        if not paths.is_remote(path):
            files = (os.path.join(here, name) for name in paths.files_below(here))
            num_bytes = sum(map(os.path.getsize, files))
            left = [n for n in os.listdir(folder) if not n.isdigit() and "tmp" in n]
            if left:
                section.add("unfinished", f"{', '.join(left)}: the next run tidies up")
        if num_bytes > _READ_UP_TO:
            section.add(f"step {newest:,}", f"not read: {size(num_bytes)} are too much for a look")
            return
        began = time.monotonic()
        read = checkpoints.read_whole(newest, weights.shapes(config.model))
        section.add(
            f"step {newest:,}", f"{size(read)} read, all parameters finite, {_since(began)}"
        )


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"
