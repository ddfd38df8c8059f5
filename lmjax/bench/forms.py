"""Labelled examples in the form that each architecture can learn from.

An encoder points: at a class, at tags, at a span. A decoder goes on after a prompt, an
encoder-decoder turns a source into a target. So the same example comes as the lines of the
objective that a variant has; long texts are cut by words, alike for all, so that no tokenizer
or row length decides who sees what.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmjax.errors import UserError

Record = Mapping[str, Any]

_PASSAGE_WORDS = 70  # of a context that has an answer
_DOCUMENT_WORDS = 64  # of what is summarised: its beginning
_VERSE_WORDS = 20  # longer ones are left out


def passage(record: Record) -> dict[str, Any]:
    """A question with a part of its context: some words with the whole answer among them.

    Where the answer stands in it is drawn by a hash of the example.
    """
    context, answers = record["context"], record["answers"]
    text, start = answers["text"][0], answers["answer_start"][0]
    before = context[:start].split(" ")
    inside = len(text.split(" "))
    room = max(0, _PASSAGE_WORDS - inside)
    drawn = zlib.crc32(f"{record['question']}\n{context}".encode()) % (room + 1)
    words = context.split(" ")
    first = min(max(0, len(before) - 1 - drawn), max(0, len(words) - _PASSAGE_WORDS))
    cut = len(" ".join(words[:first])) + (first > 0)
    last = max(first + _PASSAGE_WORDS, len(before) - 1 + inside)
    part = " ".join(words[first:last])
    answer = {"text": [text], "answer_start": [start - cut]}
    return {"question": record["question"], "context": part, "answers": answer}


def _sentiment(record: Record) -> tuple[str, str]:
    return record["text"], record["label"]


def _question(record: Record) -> tuple[str, str]:
    cut = passage(record)
    return f"question: {cut['question']} context: {cut['context']}", cut["answers"]["text"][0]


def _summary(record: Record) -> tuple[str, str]:
    return " ".join(record["document"].split()[:_DOCUMENT_WORDS]), record["summary"]


def _verse(record: Record) -> tuple[str, str]:
    return record["source"], record["target"]


# Task -> (source, target) of an example, as text to text; and what a decoder's prompt ends with.
_TEXTS: dict[str, tuple[Callable[[Record], tuple[str, str]], str]] = {
    "sentiment": (_sentiment, "sentiment:"),
    "questions": (_question, "answer:"),
    "summaries": (_summary, "summary:"),
    "translation": (_verse, "Spanish:"),
}


def seq2seq(task: str, record: Record) -> dict[str, Any]:
    """Source and target."""
    source, target = _TEXTS[task][0](record)
    return {"source": source, "target": target}


def completion(task: str, record: Record) -> dict[str, Any]:
    """Prompt and what follows."""
    make, cue = _TEXTS[task]
    source, target = make(record)
    return {"prompt": f"{source}\n{cue}", "completion": f" {target}"}


def _pointing(task: str, record: Record) -> dict[str, Any]:
    return passage(record) if task == "questions" else dict(record)


# Objective -> (task, example) -> a line of its files.
FORMS: dict[str, Callable[[str, Record], dict[str, Any]]] = {
    "sequence_classification": _pointing,
    "token_classification": _pointing,
    "span_extraction": _pointing,
    "seq2seq": seq2seq,
    "completion": completion,
}


def kept(task: str, records: Iterable[Record]) -> Iterator[Record]:
    """The examples that are used: of verses the short ones, of everything else all."""
    for record in records:
        if task != "translation" or len(record["source"].split()) <= _VERSE_WORDS:
            yield record


def write(task: str, objective: str, source: Path, target: Path, limit: int | None) -> int:
    """Writes the lines of an objective; the first `limit`, None: all. Returns how many.

    Raises:
      UserError: the file has none, or a line lacks a field.
    """
    with source.open(encoding="utf-8") as stream:
        records = list(kept(task, map(json.loads, stream)))[:limit]
    if not records:
        raise UserError(f"{source} has no examples for {task}; give a file that has")
    try:
        lines = [json.dumps(FORMS[objective](task, record)) for record in records]
    except (KeyError, IndexError) as error:
        raise UserError(
            f"{source} has an example of {task} without {error}; see docs/results.md for the fields"
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines)
    if not target.exists() or target.read_text(encoding="utf-8") != content:
        target.write_text(content, encoding="utf-8")
    return len(lines)
