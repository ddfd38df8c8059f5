"""Files of JSON lines: each line is read, scored, say, and written back with what it came to.

Input streams through in chunks, so that memory does not grow with it. Empty lines are left out.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, TypeVar

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.data.progress import Progress
from lmjax.data.text import file_errors
from lmjax.errors import UserError
from lmjax.infer.score import Example, Score, Scorer

_CHUNK_LINES, _CHUNK_BYTES = 4096, 1 << 26

Framed = TypeVar("Framed")


@dataclass
class Summary:
    """What was scored."""

    num_lines: int = 0
    num_tokens: int = 0
    logprob: float = 0.0
    seconds: float = 0.0

    def add(self, score: Score) -> None:
        """Counts one more line."""
        self.num_lines += 1
        self.num_tokens += score.num_tokens
        self.logprob += score.logprob

    def __str__(self) -> str:
        mean = f"{-self.logprob / self.num_tokens:.4f}" if self.num_tokens else "no"
        return (
            f"{self.num_lines:,} lines, {self.num_tokens:,} tokens, {self.seconds:.1f} s, "
            f"{mean} nats per token"
        )


class Line(NamedTuple):
    """A line of a file.

    Attributes:
      place: FILE:LINE.
      number: its number among all lines that are not empty, from 0.
      content: its bytes.
      bytes_read: how far reading has come with it, in bytes on disk of all files.
    """

    place: str
    number: int
    content: bytes
    bytes_read: int


class Chunk(NamedTuple):
    """Lines that are in memory together.

    Attributes:
      lines, records: the lines, and the JSON object of each.
      before, total: bytes on disk in front of them, and of all files.
    """

    lines: list[Line]
    records: list[dict[str, Any]]
    before: int
    total: int

    def framed(self, frame: Callable[[dict[str, Any]], Framed]) -> list[Framed]:
        """What `frame` makes of each record; its `UserError` gets the line's place."""
        found = []
        for line, record in zip(self.lines, self.records, strict=True):
            with placed(line):
                found.append(frame(record))
        return found

    def tell(self, progress: Progress, done: int, of: int, tokens: int | None = None) -> None:
        """Tells that `done` parts `of` this chunk are ready, and of how many tokens in all."""
        reach = self.lines[-1].bytes_read - self.before
        progress(self.before + reach * done // of, self.total, tokens)


@contextlib.contextmanager
def placed(line: Line) -> Iterator[None]:
    """Puts the place of a line in front of what is said of it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{line.place}: {error}") from None


def find(path: str) -> tuple[str, ...]:
    """JSONL files that `path` means, as `data.files.find_files` reads it.

    Raises:
      UserError: there is none, or something else among them.
    """
    files = files_lib.find_files(path)
    for file in files:
        if not files_lib.suffix(file).startswith(".jsonl"):
            raise UserError(f"{file}: not JSON lines; give .jsonl, .jsonl.gz or .jsonl.zst")
    return files


def chunks(files: Sequence[str]) -> Iterator[Chunk]:
    """The lines of files, in order.

    Args:
      files: from `find`.

    Raises:
      UserError: a line is no JSON object, or a file cannot be read.
    """
    total, before = sum(map(paths.size, files)), 0
    for lines in _grouped(_lines(files)):
        yield Chunk(lines, [_record(line) for line in lines], before, total)
        before = lines[-1].bytes_read


def encoded(record: dict[str, Any]) -> bytes:
    """A line of JSON, UTF-8."""
    try:
        return f"{json.dumps(record, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:  # half a surrogate pair in some field
        return f"{json.dumps(record)}\n".encode()


def score(
    files: Sequence[str],
    output: BinaryIO,
    frame: Callable[[dict[str, Any]], Example],
    scorer: Scorer,
    progress: Progress = lambda done, total, tokens: None,
) -> Summary:
    """Writes each line back with `logprob` (nats) and `num_tokens`.

    Args:
      files: from `find`.
      output: gets the lines, UTF-8.
      frame: a line's object -> what is scored of it.
      scorer: run in the mesh's context.
      progress: told after each batch.

    Raises:
      UserError: a line is no JSON object, `frame` refuses it, or its score is not finite.
    """
    began, summary = time.monotonic(), Summary()
    for chunk in chunks(files):
        tell, before = chunk.tell, summary.num_tokens
        told = lambda done, of, tell=tell, before=before: tell(progress, done, of, before + done)
        scores = scorer(chunk.framed(frame), told)
        for line, record, result in zip(chunk.lines, chunk.records, scores, strict=True):
            with placed(line):
                output.write(encoded(record | _fields(result)))
            summary.add(result)
    summary.seconds = time.monotonic() - began
    return summary


def _fields(score: Score) -> dict[str, Any]:
    if not math.isfinite(score.logprob):
        raise UserError(
            f"the model gives it a log-probability of {score.logprob}; the training has diverged: "
            "take an earlier --step"
        )
    return {"logprob": score.logprob, "num_tokens": score.num_tokens}


def _lines(files: Sequence[str]) -> Iterator[Line]:
    before = number = 0
    for file in files:
        with file_errors(file), files_lib.open_bytes(file) as (content, raw):
            for place, line in enumerate(content, 1):
                if not line.isspace():
                    yield Line(f"{file}:{place}", number, line, before + raw.tell())
                    number += 1
        before += paths.size(file)


def _grouped(lines: Iterable[Line]) -> Iterator[list[Line]]:
    group, size = [], 0
    for line in lines:
        group.append(line)
        size += len(line.content)
        if len(group) == _CHUNK_LINES or size >= _CHUNK_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _record(line: Line) -> dict[str, Any]:
    try:
        record = json.loads(line.content)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{line.place}: not JSON ({why}); give one object per line") from None
    if not isinstance(record, dict):
        raise UserError(f"{line.place}: no JSON object; give one per line, {{...}}")
    return record
