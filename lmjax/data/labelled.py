"""Labelled examples: files of JSON lines (or Parquet) -> examples in memory -> rows of batches.

They are few beside the text of pre-training, so there is no store: every start reads and encodes
them anew. What one of them means, and what a row of it is, only the objective knows
(`lmjax.batch.LabelledObjective`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq

from lmjax.batch import Batch, Encoder, Example, LabelledObjective
from lmjax.data import files as files_lib
from lmjax.data import json_lines
from lmjax.data.text import file_errors, normalise
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.errors import UserError, reason

Record = dict[str, Any]
Log = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Labelled examples as they were read.

    Attributes:
      path: what they were read from.
      split: "train" or "eval".
      records: JSON objects, their fields by the objective's names.
      places: short name of the file, and line or row in it, from 0.
      tokenizer_path: folder of the tokenizer.
      manifest_sha256: of all records.
    """

    path: str
    split: str
    records: tuple[Record, ...]
    places: tuple[tuple[str, int], ...]
    tokenizer_path: str
    manifest_sha256: str

    def origin(self, index: int) -> tuple[str, int]:
        """(file, line or row in it) of an example."""
        return self.places[index]


def read(path: str, split: str, fields: Mapping[str, str], tokenizer_path: str) -> LabelledSet:
    """Reads labelled examples.

    Args:
      path: files, globs or folders, as `find_files` understands them.
      split: what they are for.
      fields: the objective's name of a field -> the name that it has there.
      tokenizer_path: of the run.

    Raises:
      UserError: a file cannot be read, a line is no JSON object, or there is none.
    """
    files = files_lib.find_files(path)
    found = [
        ((name, number), {**record, **_renamed(record, fields)})
        for file, name in zip(files, files_lib.short_names(files), strict=True)
        for number, record in _records(file)
    ]
    if not found:
        raise UserError(f"{path}: holds no examples; give lines of JSON objects, {{...}}")
    places, records = zip(*found, strict=True)
    return _labelled_set(path, split, records, places, tokenizer_path)


def _labelled_set(
    path: str,
    split: str,
    records: Sequence[Record],
    places: Sequence[tuple[str, int]],
    tokenizer_path: str,
) -> LabelledSet:
    content = hashlib.sha256()
    for record in records:
        content.update(_canonical(record))
    folder = os.path.expanduser(tokenizer_path)
    return LabelledSet(path, split, tuple(records), tuple(places), folder, content.hexdigest())


def _canonical(record: Record) -> bytes:
    return json.dumps(record, sort_keys=True, default=str).encode("utf-8", "surrogatepass") + b"\n"


def _renamed(record: Record, fields: Mapping[str, str]) -> Record:
    return {ours: record[theirs] for ours, theirs in fields.items() if theirs in record}


def _records(file: str) -> Iterator[tuple[int, Record]]:
    kind = files_lib.suffix(file)
    if not kind.startswith((".jsonl", ".parquet")):
        raise UserError(f"{file}: no labelled examples; give JSON lines (.jsonl) or .parquet")
    with file_errors(file), files_lib.open_bytes(file) as (content, _):
        if kind == ".parquet":
            yield from _parquet_rows(file, content)
            return
        for number, _, record in json_lines.records(file, content):
            yield number - 1, record


def _parquet_rows(file: str, content: BinaryIO) -> Iterator[tuple[int, Record]]:
    first = 0
    for batch in pq.ParquetFile(content, page_checksum_verification=True).iter_batches():
        try:
            rows = batch.to_pylist()
        except (ValueError, ArithmeticError) as error:  # not UTF-8; a date that Python lacks
            why = f"rows {first} to {first + len(batch) - 1} hold what cannot be read"
            raise UserError(f"{file}: {why} ({reason(error)}); mend them") from error
        yield from enumerate(rows, first)
        first += len(rows)


def hold_out(examples: LabelledSet, fraction: float) -> tuple[LabelledSet, LabelledSet]:
    """Training and held-out examples: equal ones always fall on the same side.

    Raises:
      UserError: one side is empty.
    """
    hashes = [
        hashlib.blake2b(_canonical(record), digest_size=8).digest() for record in examples.records
    ]
    held = [int.from_bytes(digest, "big") < fraction * 2**64 for digest in hashes]
    if not any(held) or all(held):
        raise UserError(
            f"{examples.path}: of {len(held):,} examples data.eval_fraction={fraction} leaves "
            f"{sum(held)} to be held out; set data.eval_path to a file of them, or another fraction"
        )
    parts = []
    for split, wanted in (("train", False), ("eval", True)):
        index = [i for i, is_held in enumerate(held) if is_held == wanted]
        records, places = ([x[i] for i in index] for x in (examples.records, examples.places))
        parts.append(_labelled_set(examples.path, split, records, places, examples.tokenizer_path))
    return parts[0], parts[1]


@dataclass(frozen=True)
class TextEncoder:
    """The face of a tokenizer that objectives see: text is cleaned as that of pre-training was."""

    tokenizer: AnyTokenizer

    def clean(self, text: str) -> str:
        counts: Counter[str] = Counter()
        clean = normalise(text, counts)
        if counts["bad_utf8"]:
            raise UserError("holds half a surrogate pair, which is no text; take it out")
        return text if clean is None else clean

    def ids(self, text: str) -> np.ndarray:
        return self.tokenizer.encode(self.clean(text))

    def spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        return self.tokenizer.encode_spans(text)

    def decode(self, ids: np.ndarray) -> str:
        return self.tokenizer.decode(ids)


@dataclass(frozen=True, eq=False)
class ExampleRows:
    """One example a row, padded.

    Attributes:
      store: where they come from.
      objective: whose rows they are.
      examples: encoded, in the order of the store.
    """

    store: LabelledSet
    objective: LabelledObjective
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def make(self, seed: int, epoch_R: np.ndarray, row_R: np.ndarray) -> Batch:
        spec = self.objective.spec(len(row_R))
        batch = {name: np.zeros(shape, dtype) for name, (shape, dtype) in spec.items()}
        for slot, number in enumerate(np.asarray(row_R).tolist()):
            if number < len(self.examples):
                for name, values in self.examples[number].row.items():
                    batch[name][slot, : len(values)] = values
        return batch

    def documents(self, row: int) -> list[int]:
        return [row] if row < len(self.examples) else []


def rows(
    store: LabelledSet,
    objective: LabelledObjective,
    encoder: Encoder,
    limits: Mapping[str, int],
    *,
    truncate: bool,
    log: Log,
) -> ExampleRows:
    """Encodes the examples of a set.

    Args:
      store: the examples.
      objective: that they are for.
      encoder: of their text.
      limits: places that there are, by the name of the config's field that says so.
      truncate: whether what is too long is cut, and said; else it is an error.
      log: told of what is cut.

    Raises:
      UserError: a record is not what the objective takes, or too long.
    """
    examples = []
    for place, record in zip(store.places, store.records, strict=True):
        try:
            examples.append(objective.encode(record, encoder))
        except UserError as error:
            raise UserError(f"{_named(place)}: {error}") from None
    for field, limit in limits.items():
        needs = [example.needs.get(field, 0) for example in examples]
        first = next((i for i, places in enumerate(needs) if places > limit), None)
        if first is None:
            continue
        over = sum(places > limit for places in needs)
        said = f"{over:,} of {len(needs):,} examples take more than config.{field}={limit} ids"
        if not truncate:
            raise UserError(
                f"{_named(store.places[first])}: too long ({needs[first]} ids); {said}, the "
                f"longest {max(needs)}: set {field} to that, or objective.truncate=True"
            )
        log(f"{store.path}: {said}, the longest {max(needs)}, and are cut")
    return ExampleRows(store, objective, tuple(examples))


def _named(place: tuple[str, int]) -> str:
    return f"{place[0]}:{place[1] + 1}"
