"""Documents out of text files: .txt, .jsonl (plain, .gz, .zst) and .parquet, one at a time.

What is wrong with one record costs that record and is counted; the rest of the file is read. What
is wrong with a whole file (no such field, a torn compressed stream) is an error that names it.
Memory is bounded by `MAX_RECORD_BYTES`, whatever the files hold.

Every document is normalised: byte order mark stripped, CRLF and CR to LF, NUL removed, Unicode
form C. Documents without anything but white space are dropped.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.errors import UserError

MAX_RECORD_BYTES = 1 << 27
SKIP_REASONS = {
    "bad_utf8": "not UTF-8",
    "bad_json": "not JSON",
    "no_text": "no text in the field",
    "too_long": f"longer than {MAX_RECORD_BYTES >> 20} MiB",
    "empty": "empty",
}
_BOM = b"\xef\xbb\xbf"
_PARQUET_ROWS = 256
_SKIP_BYTES = 1 << 20
_MAX_NAMES, _MAX_NAME_CHARS = 20, 50  # of fields in a message
_decode_json = json.JSONDecoder(strict=False).decode  # raw tabs inside strings do no harm


@dataclass(frozen=True, slots=True)
class Document:
    """A normalised text and where it came from: file index, and line, row or paragraph in it."""

    text: str
    file: int
    record: int


@dataclass(slots=True)
class Meter:
    """How far reading has come, in bytes on disk (compressed where the files are)."""

    bytes_read: int = 0


_Record = tuple[int, bytes | str | None]  # (record index, text; None: counted as bad already)


def read_documents(
    files: Sequence[str],
    *,
    text_key: str,
    text_split: str,
    counts: Counter[str],
    start: tuple[int, int] = (0, 0),
    meter: Meter | None = None,
) -> Iterator[Document]:
    """Reads the documents of `files` in order.

    Args:
      files: paths as `find_files` gives them.
      text_key: field (JSONL) or column (Parquet) of the text.
      text_split: what one document is in a .txt file: "file", "paragraph" or "line".
      counts: gets the number of records skipped for each of `SKIP_REASONS`, and of documents
        that had NULs removed ("nul_removed").
      start: (file index, record index) of the first record to read.
      meter: kept up to date with the bytes read from disk.

    Raises:
      UserError: a file cannot be opened or read to its end, or has no field `text_key`.
    """
    meter = meter or Meter()
    for index in range(start[0], len(files)):
        file, before = files[index], meter.bytes_read
        skip = start[1] if index == start[0] else 0
        with file_errors(file), files_lib.open_bytes(file) as (content, raw):
            for record, data in read_records(file, content, text_key, text_split, counts, skip):
                meter.bytes_read = before + raw.tell()
                if (text := normalise(data, counts)) is not None:
                    yield Document(text, index, record)
        meter.bytes_read = before + paths.size(file)


@contextmanager
def file_errors(file: str) -> Iterator[None]:
    """Turns what goes wrong with a file as a whole into a `UserError` that names it."""
    try:
        with _access_errors(file):
            yield
    except (FileNotFoundError, PermissionError) as error:
        why = f"cannot be opened ({error.strerror}); check path and rights"
        raise UserError(f"{file}: {why}") from error
    except (OSError, EOFError, pa.ArrowException) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file}: cannot be read to its end ({why}); it is damaged or incomplete: "
            "fetch or compress it again"
        ) from error


@contextmanager
def _access_errors(file: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not paths.is_remote(file) or not paths.is_access(error):
            raise
        raise UserError(paths.explain(file, error)) from error


def read_records(
    file: str, content: BinaryIO, text_key: str, text_split: str, counts: Counter, skip: int
) -> Iterator[_Record]:
    """Yields the (record index, raw text) of an open file, from record `skip` on."""
    kind = files_lib.suffix(file)
    if kind == ".parquet":
        return _parquet(file, content, text_key, counts, skip)
    if kind.startswith(".jsonl"):
        return _jsonl(file, content, text_key, counts, skip)
    if text_split == "file":
        return _whole(file, content, skip)
    if text_split == "line":
        return lines(content, counts, skip)
    if text_split == "paragraph":
        return _paragraphs(content, counts, skip)
    raise UserError(f"text_split={text_split!r}: unknown; use file, paragraph or line")


def normalise(data: bytes | str | None, counts: Counter[str]) -> str | None:
    """The clean text of a record, or None (and one more in `counts`) where there is none."""
    if data is None:
        return None
    try:
        text = data.decode() if isinstance(data, bytes) else data
        if "\0" in text:
            text = text.replace("\0", "")
            counts["nul_removed"] += 1
        if not text.isascii():
            text.encode()  # JSON can spell half a surrogate pair, which is no text
            text = text.removeprefix("\ufeff")
            if not unicodedata.is_normalized("NFC", text):
                text = unicodedata.normalize("NFC", text)
    except UnicodeError:
        counts["bad_utf8"] += 1
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text or text.isspace():
        counts["empty"] += 1
        return None
    return text


def lines(
    content: BinaryIO, counts: Counter[str] | None = None, skip: int = 0
) -> Iterator[tuple[int, bytes | None]]:
    """(number, line without its end) from number `skip` on; never more than `MAX_RECORD_BYTES`.

    None: longer than that, and counted.
    """
    counts, number = Counter() if counts is None else counts, 0
    while line := content.readline(MAX_RECORD_BYTES):
        if too_long := len(line) == MAX_RECORD_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = content.readline(_SKIP_BYTES)
        if number >= skip:
            if too_long:
                counts["too_long"] += 1
                yield number, None
            else:
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                yield number, line.removeprefix(_BOM) if number == 0 else line
        number += 1


def _paragraphs(content: BinaryIO, counts: Counter, skip: int) -> Iterator[_Record]:
    number, held, size = 0, [], 0
    found = (line for _, line in lines(content))
    for line in itertools.chain(found, [b""]):
        if line is None or (line and not line.isspace()):
            size += MAX_RECORD_BYTES + 1 if line is None else len(line) + 1
            if size > MAX_RECORD_BYTES:
                held.clear()
            else:
                held.append(line)
        elif size:
            if number >= skip:
                if size > MAX_RECORD_BYTES:
                    counts["too_long"] += 1
                else:
                    yield number, b"\n".join(held)
            number, held, size = number + 1, [], 0


def _whole(file: str, content: BinaryIO, skip: int) -> Iterator[_Record]:
    if skip:
        return
    data = content.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise UserError(
            f"{file}: more than {MAX_RECORD_BYTES >> 20} MiB, too long for one document; "
            "set text_split to paragraph or line"
        )
    yield 0, data.removeprefix(_BOM)


def _jsonl(
    file: str, content: BinaryIO, text_key: str, counts: Counter, skip: int
) -> Iterator[_Record]:
    for number, line in lines(content, counts, skip):
        if line is None or not line or line.isspace():
            continue
        try:
            record = _decode_json(line.decode())
        except UnicodeDecodeError:
            counts["bad_utf8"] += 1
            continue
        except (ValueError, RecursionError):
            counts["bad_json"] += 1
            continue
        text = record.get(text_key) if isinstance(record, dict) else None
        if isinstance(text, str):
            yield number, text
            continue
        if number == 0 and isinstance(record, dict) and text_key not in record:
            raise lacks_field(file, text_key, record)
        counts["no_text"] += 1


def lacks_field(file: str, text_key: str, names: Iterable[str]) -> UserError:
    """What is said of a file whose first record has these fields, and not that of the text."""
    return UserError(
        f"{file}: the first record has no field {text_key!r}; it has "
        f"{_listed(sorted(names)) or 'no fields'}; set text_key"
    )


def _listed(names: Sequence[str]) -> str:
    """Names of fields; a few of very many."""
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(name[:_MAX_NAME_CHARS] for name in names[:_MAX_NAMES]) + more


def _parquet(
    file: str, content: BinaryIO, text_key: str, counts: Counter, skip: int
) -> Iterator[_Record]:
    table = pq.ParquetFile(content, pre_buffer=False, page_checksum_verification=True)
    schema = table.schema_arrow
    if text_key not in schema.names:
        raise UserError(
            f"{file}: no column {text_key!r}; it has {_listed(schema.names)}; set text_key"
        )
    kind = schema.field(text_key).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()):
        raise UserError(f"{file}: column {text_key!r} holds {kind}, not text; set text_key")
    number = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if number + rows <= skip:
            number += rows
            continue
        for batch in table.iter_batches(_PARQUET_ROWS, row_groups=[group], columns=[text_key]):
            for text in _values(batch.column(0)):
                if number >= skip:
                    if text is None:
                        counts["no_text"] += 1
                    yield number, text
                number += 1


def _values(column: pa.Array) -> Iterator[str | bytes | None]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        yield from column.to_pylist()
    except UnicodeDecodeError:  # nothing was yielded yet; let `normalise` count the bad ones
        yield from column.cast(pa.large_binary()).to_pylist()
