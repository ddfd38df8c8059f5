"""Files of JSON lines, read in chunks, so that memory does not grow with them; their scores.

Empty lines are left out.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.data import json_lines
from lmjax.data.progress import Progress
from lmjax.data.text import file_errors
from lmjax.errors import UserError
from lmjax.infer.score import Example, Score, Scorer

_CHUNK_LINES, _CHUNK_BYTES = 4096, 1 << 26

OnBatch = Callable[..., None]


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
      record: its object.
      bytes_read: how far reading has come with it, in bytes on disk of all files.
    """

    place: str
    record: dict[str, Any]
    bytes_read: int


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
    for lines, on_batch in read(files, progress):
        for line, result in zip(lines, scorer(made(lines, frame), on_batch), strict=True):
            output.write(_scored(line, result))
            summary.add(result)
    summary.seconds = time.monotonic() - began
    return summary


class _Told:
    """Tells how far things are in a chunk, in bytes of all files; keeps the tokens so far."""

    def __init__(self, progress: Progress, before: int, after: int, total: int, tokens: int):
        self.tokens, self._tokens_before = tokens, tokens
        self._progress, self._before, self._after, self._total = progress, before, after, total

    def __call__(self, done: int, of: int, tokens: int | None = None) -> None:
        """`done` of the chunk's own, `of` so many: tokens, unless it is said how many those are."""
        self.tokens = self._tokens_before + (done if tokens is None else tokens)
        bytes_done = self._before + (self._after - self._before) * done // of
        self._progress(bytes_done, self._total, self.tokens)


def read(
    files: Sequence[str], progress: Progress = lambda done, total, tokens: None
) -> Iterator[tuple[list[Line], OnBatch]]:
    """The lines of files from `find`, some thousands at a time.

    Yields:
      (lines, what to tell how many tokens of them are done, of how many).

    Raises:
      UserError: a file cannot be read, or a line is no JSON object.
    """
    before, tokens, total = 0, 0, sum(map(paths.size, files))
    for lines in _chunks(_lines(files)):
        told = _Told(progress, before, lines[-1].bytes_read, total, tokens)
        yield lines, told
        before, tokens = lines[-1].bytes_read, told.tokens


def _chunks(lines: Iterable[tuple[Line, int]]) -> Iterator[list[Line]]:
    chunk, size = [], 0
    for line, num_bytes in lines:
        chunk.append(line)
        size += num_bytes
        if len(chunk) == _CHUNK_LINES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _lines(files: Sequence[str]) -> Iterator[tuple[Line, int]]:
    before = 0
    for file in files:
        with file_errors(file), files_lib.open_bytes(file) as (content, raw):
            for number, line, record in json_lines.records(file, content):
                yield Line(f"{file}:{number}", record, before + raw.tell()), len(line)
        before += paths.size(file)


def made(lines: Iterable[Line], make: Callable[[dict[str, Any]], Any]) -> list[Any]:
    """What `make` makes of each line's object; a `UserError` of it then names the line."""
    results = []
    for line in lines:
        try:
            results.append(make(line.record))
        except UserError as error:
            raise UserError(f"{line.place}: {error}") from None
    return results


def dumped(record: dict[str, Any]) -> bytes:
    """A line."""
    try:
        return f"{json.dumps(record, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:  # half a surrogate pair in some field
        return f"{json.dumps(record)}\n".encode()


def _scored(line: Line, score: Score) -> bytes:
    if not math.isfinite(score.logprob):
        raise diverged(line.place, f"a log-probability of {score.logprob}")
    return dumped(line.record | {"logprob": score.logprob, "num_tokens": score.num_tokens})


def diverged(place: str, what: str) -> UserError:
    """To raise where a model gives numbers that are none."""
    return UserError(
        f"{place}: the model gives it {what}; the training has diverged: take an earlier --step"
    )
