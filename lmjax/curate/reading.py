"""Records of text files with all their fields, in shards that depend on the files alone.

A record that cannot be read costs that record: it is given as what is wrong with it. The rest of
the file is read, unlike by the engine's own reader, which ends at the first byte that is no UTF-8.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.data import text as text_lib

SHARD_BYTES = 32 << 20  # of a file on disk: what one task reads
_PARQUET_ROWS = 256


@dataclass(frozen=True)
class Shard:
    """Every `of`-th record of a file, from number `part` on."""

    file: str
    name: str
    part: int
    of: int


@dataclass
class Record:
    """A document as it was found.

    Attributes:
      id: of the input, or `FILE/NUMBER`.
      text: normalised (NFC, line ends, no NUL); of what cannot be read, the beginning of it.
      fields: the input's others.
      wrong: why it cannot be read, as a name; None: it can.
    """

    id: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)
    wrong: str | None = None


def shards(files: Sequence[str]) -> list[Shard]:
    """Work that tasks share: at least one shard of each file, in their order."""
    names = files_lib.short_names(files)
    return [
        Shard(file, name, part, of)
        for file, name in zip(files, names, strict=True)
        for of in [max(1, math.ceil(paths.size(file) / SHARD_BYTES))]
        for part in range(of)
    ]


def read(shard: Shard, text_key: str, text_split: str) -> Iterator[Record]:
    """The records of a shard, in order.

    Raises:
      UserError: the file cannot be opened or read to its end, or its first record has no field
        `text_key`.
    """
    with text_lib.file_errors(shard.file), files_lib.open_bytes(shard.file) as (content, _):
        for number, raw in _raw(shard, content, text_key, text_split):
            if number % shard.of == shard.part:
                yield _record(shard, number, raw, text_key)


_Raw = dict[str, Any] | tuple[str, bytes]  # fields, or (what is wrong, the bytes)


def _raw(
    shard: Shard, content: BinaryIO, text_key: str, text_split: str
) -> Iterator[tuple[int, _Raw]]:
    kind = files_lib.suffix(shard.file)
    if kind == ".parquet":
        yield from _parquet(content)
    elif kind.startswith(".jsonl"):
        yield from _jsonl(shard, content, text_key)
    else:
        counts: Counter[str] = Counter()
        for number, data in text_lib.read_records(
            shard.file, content, text_key, text_split, counts, 0
        ):
            yield number, ("too_long", b"") if data is None else {text_key: data}


def _jsonl(shard: Shard, content: BinaryIO, text_key: str) -> Iterator[tuple[int, _Raw]]:
    for number, line in text_lib.lines(content):
        if line is not None and (not line or line.isspace()):
            continue
        if number % shard.of != shard.part and number:  # another task's: not even parsed
            continue
        yield number, ("too_long", b"") if line is None else _parsed(line)


def _parsed(line: bytes) -> _Raw:
    try:
        found = json.loads(line.decode(), strict=False)
    except UnicodeDecodeError:
        return "bad_utf8", line
    except (ValueError, RecursionError):
        return "bad_json", line
    return found if isinstance(found, dict) else ("bad_json", line)


def _parquet(content: BinaryIO) -> Iterator[tuple[int, _Raw]]:
    table, number = pq.ParquetFile(content, page_checksum_verification=True), 0
    for batch in table.iter_batches(_PARQUET_ROWS):
        for i in range(batch.num_rows):
            try:
                yield number, batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield number, ("bad_utf8", b"")
            number += 1


def _record(shard: Shard, number: int, raw: _Raw, text_key: str) -> Record:
    place = f"{shard.name}/{number}"
    if isinstance(raw, tuple):
        wrong, data = raw
        return Record(place, data[:2000].decode(errors="replace"), wrong=wrong)
    text = raw.pop(text_key, None)
    given = raw.pop("id", None)
    record = Record(place if given is None else str(given), "", raw)
    if not isinstance(text, str | bytes):
        if number == 0 and text_key not in raw and text is None:
            raise text_lib.lacks_field(shard.file, text_key, raw)
        record.wrong = "no_text"
        return record
    counts: Counter[str] = Counter()
    clean = text_lib.normalise(text, counts)
    if clean is None:
        record.wrong = next(name for name in counts if name != "nul_removed")
        return record
    record.text = clean
    return record
