"""Files of JSON lines: each line is scored and written back with what it came to.

Input streams through in chunks, so that memory does not grow with it. Empty lines are left out.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.data.progress import Progress
from lmjax.data.text import file_errors
from lmjax.errors import UserError
from lmjax.infer.score import Example, Score, Scorer

_CHUNK_LINES, _CHUNK_BYTES = 4096, 1 << 26


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


class _Line(NamedTuple):
    """A line of a file.

    Attributes:
      place: FILE:LINE.
      content: its bytes.
      bytes_read: how far reading has come with it, in bytes on disk of all files.
    """

    place: str
    content: bytes
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
    began, summary, before = time.monotonic(), Summary(), 0
    total = sum(map(paths.size, files))
    for lines in _chunks(_lines(files)):
        records = [_record(line) for line in lines]
        examples = [_framed(*pair, frame) for pair in zip(lines, records, strict=True)]
        span = before, lines[-1].bytes_read, total
        scores = scorer(examples, partial(_tell, progress, span, summary.num_tokens))
        for line, record, result in zip(lines, records, scores, strict=True):
            output.write(_scored(line, record, result))
            summary.add(result)
        before = lines[-1].bytes_read
    summary.seconds = time.monotonic() - began
    return summary


def _tell(progress: Progress, span: tuple[int, int, int], tokens: int, done: int, of: int) -> None:
    """Within a chunk that reaches over `span` bytes: `done` tokens `of` its own, after `tokens`."""
    first, last, total = span
    progress(first + (last - first) * done // of, total, tokens + done)


def _lines(files: Sequence[str]) -> Iterator[_Line]:
    before = 0
    for file in files:
        with file_errors(file), files_lib.open_bytes(file) as (content, raw):
            for number, line in enumerate(content, 1):
                if not line.isspace():
                    yield _Line(f"{file}:{number}", line, before + raw.tell())
        before += paths.size(file)


def _chunks(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    chunk, size = [], 0
    for line in lines:
        chunk.append(line)
        size += len(line.content)
        if len(chunk) == _CHUNK_LINES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _record(line: _Line) -> dict[str, Any]:
    try:
        record = json.loads(line.content)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{line.place}: not JSON ({why}); give one object per line") from None
    if not isinstance(record, dict):
        raise UserError(f"{line.place}: no JSON object; give one per line, {{...}}")
    return record


def _framed(
    line: _Line, record: dict[str, Any], frame: Callable[[dict[str, Any]], Example]
) -> Example:
    try:
        return frame(record)
    except UserError as error:
        raise UserError(f"{line.place}: {error}") from None


def _scored(line: _Line, record: dict[str, Any], score: Score) -> bytes:
    if not math.isfinite(score.logprob):
        raise UserError(
            f"{line.place}: the model gives it a log-probability of {score.logprob}; the training "
            "has diverged: take an earlier --step"
        )
    scored = record | {"logprob": score.logprob, "num_tokens": score.num_tokens}
    try:
        return f"{json.dumps(scored, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:  # half a surrogate pair in some field
        return f"{json.dumps(scored)}\n".encode()
