"""What a task counts: documents, bytes and tokens that came in, stayed and went, and why."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import regex

from lmjax.data import tokenizer as tokenizer_lib

EXCERPTS, EXCERPT_CHARACTERS = 10, 300

_MARKS = regex.compile(r"\w+|[^\w\s]")


class TokenCounter:
    """Counts tokens of texts: a tokenizer's, or words and marks where there is none."""

    def __init__(self, tokenizer: str | None) -> None:
        self._path = tokenizer
        self._tokenizer: Any = None

    def __call__(self, text: str) -> int:
        if self._path is None:
            return len(_MARKS.findall(text))
        if self._tokenizer is None:
            self._tokenizer = tokenizer_lib.load(self._path)
        return len(self._tokenizer.encode_batch([text])[0])

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_tokenizer": None}


@dataclass
class Amount:
    """Documents, and the bytes (UTF-8) and tokens of their texts."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0

    def add(self, other: Amount) -> None:
        self.documents += other.documents
        self.bytes += other.bytes
        self.tokens += other.tokens

    def as_list(self) -> list[int]:
        return [self.documents, self.bytes, self.tokens]


class Measure:
    """The amount of a text; that of the last one is remembered."""

    def __init__(self, tokenizer: str | None) -> None:
        self._tokens = TokenCounter(tokenizer)
        self._text, self._amount = "", Amount(1)

    def __call__(self, text: str) -> Amount:
        if text != self._text:
            size = len(text.encode(errors="replace"))
            self._text, self._amount = text, Amount(1, size, self._tokens(text))
        return self._amount


@dataclass
class Time:
    """What a judge took: seconds, documents, bytes of text."""

    seconds: float = 0.0
    documents: int = 0
    bytes: int = 0


@dataclass
class Tally:
    """Of one task of a stage, or of several.

    Attributes:
      came, kept: amounts.
      dropped: by rule.
      excerpts: by rule, (order, id, beginning of the text) of the `EXCERPTS` lowest orders, which
        are hashes of ids: a fair and repeatable choice.
      times: by judge.
      before, after: kind of balance -> name -> amount.
      left_out: language -> rules that did not fit it.
      counts: of other things.
    """

    came: Amount = field(default_factory=Amount)
    kept: Amount = field(default_factory=Amount)
    dropped: dict[str, Amount] = field(default_factory=dict)
    excerpts: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    times: dict[str, Time] = field(default_factory=dict)
    before: dict[str, dict[str, Amount]] = field(default_factory=dict)
    after: dict[str, dict[str, Amount]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def drop(self, rule: str, amount: Amount, id: str, text: str) -> None:
        """Counts a document that goes, and maybe keeps an excerpt of it."""
        self.dropped.setdefault(rule, Amount()).add(amount)
        some = self.excerpts.setdefault(rule, [])
        some.append((order(id), id, text[:EXCERPT_CHARACTERS]))
        if len(some) > 8 * EXCERPTS:
            self.excerpts[rule] = _fewest(some)

    def as_dict(self) -> dict[str, Any]:
        amounts = lambda found: {name: amount.as_list() for name, amount in sorted(found.items())}
        return {
            "came": self.came.as_list(),
            "kept": self.kept.as_list(),
            "dropped": amounts(self.dropped),
            "excerpts": {rule: _fewest(found) for rule, found in sorted(self.excerpts.items())},
            "times": {k: [t.seconds, t.documents, t.bytes] for k, t in self.times.items()},
            "before": {kind: amounts(found) for kind, found in self.before.items()},
            "after": {kind: amounts(found) for kind, found in self.after.items()},
            "left_out": self.left_out,
            "counts": self.counts,
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Tally:
        amounts = lambda named: {name: Amount(*numbers) for name, numbers in named.items()}
        return cls(
            Amount(*found["came"]),
            Amount(*found["kept"]),
            amounts(found["dropped"]),
            {rule: [tuple(x) for x in some] for rule, some in found["excerpts"].items()},
            {judge: Time(*numbers) for judge, numbers in found["times"].items()},
            {kind: amounts(named) for kind, named in found["before"].items()},
            {kind: amounts(named) for kind, named in found["after"].items()},
            found["left_out"],
            found["counts"],
        )


def total(tallies: Iterable[Tally]) -> Tally:
    """Of tasks of one stage; in any order the same, times aside."""
    found = Tally()
    for tally in tallies:
        found.came.add(tally.came)
        found.kept.add(tally.kept)
        _add_amounts(found.dropped, tally.dropped)
        for rule, some in tally.excerpts.items():
            found.excerpts[rule] = _fewest([*found.excerpts.get(rule, []), *some])
        for judge, time in tally.times.items():
            of = found.times.setdefault(judge, Time())
            of.seconds += time.seconds
            of.documents += time.documents
            of.bytes += time.bytes
        for mine, theirs in ((found.before, tally.before), (found.after, tally.after)):
            for kind, named in theirs.items():
                _add_amounts(mine.setdefault(kind, {}), named)
        found.left_out |= tally.left_out
        for name, number in tally.counts.items():
            found.counts[name] = found.counts.get(name, 0) + number
    return found


def order(id: str, seed: int = 0) -> str:
    """A place for a document that follows from its id alone."""
    return hashlib.blake2b(f"{seed}:{id}".encode(errors="replace"), digest_size=8).hexdigest()


def _add_amounts(mine: dict[str, Amount], theirs: dict[str, Amount]) -> None:
    for name, amount in theirs.items():
        mine.setdefault(name, Amount()).add(amount)


def _fewest(some: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return heapq.nsmallest(EXCERPTS, some)
