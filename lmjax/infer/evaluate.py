"""Choices by log-likelihood: what a model picks of each line, and how often it is right.

| way | picks the choice with the largest |
|---|---|
| `plain` | log p |
| `per_byte` | log p by UTF-8 bytes |
| `per_token` | log p by tokens |
| `unigram` | sum of the logs of its tokens' frequencies, which knows nothing of the context |
| `unigram_per_byte` | the same by bytes |

Of equal ones it is the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lmjax.data.progress import Progress
from lmjax.infer import choice, jsonl
from lmjax.infer.choice import Choice, ChoiceFraming, Item
from lmjax.infer.score import Score, Scorer

ALL = "all"
_SEED, _DRAWS, _TAILS = 0, 10_000, (2.5, 97.5)


@dataclass(frozen=True)
class Result:
    """What became of a line.

    Attributes:
      id: its field `id`, else FILE:LINE.
      task: its field.
      answer: index of the right choice.
      scores: of each choice, by way of scoring.
      picked: index, by way of scoring.
      right: whether that is the answer.
    """

    id: Any
    task: str
    answer: int
    scores: dict[str, list[float]]
    picked: dict[str, int]
    right: dict[str, bool]


@dataclass(frozen=True)
class Accuracy:
    """Share of lines that were right, and the bootstrap's interval of 95 % over lines."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Summary:
    """Of the lines of a task: how many, what chance would get right, what was right by each way."""

    task: str
    num_items: int
    chance: float
    accuracy: dict[str, Accuracy]


def evaluate(
    files: Sequence[str],
    frame: ChoiceFraming,
    scorer: Scorer,
    *,
    unigram: np.ndarray | None = None,
    progress: Progress = lambda done, total, tokens: None,
) -> Iterator[Result]:
    """Results of the lines of JSONL files, in their order.

    Args:
      files: from `jsonl.find`.
      frame: of the model.
      scorer: run in the mesh's context.
      unigram: log-probabilities of ids, [V] or less: ids behind it count for nothing, as special
        ones do; None: without that baseline.
      progress: told after each batch.

    Raises:
      UserError: a line is refused, or a score is not finite.
    """
    special = list(frame.framing.tokenizer.special_ids)
    for lines, on_batch in jsonl.read(files, progress):
        framed = jsonl.made(lines, lambda record: (one := choice.item(record), frame(one)))
        scores = iter(scorer([c.example for _, choices in framed for c in choices], on_batch))
        for line, (one, choices) in zip(lines, framed, strict=True):
            mine = [next(scores) for _ in choices]
            if not all(math.isfinite(score.logprob) for score in mine):
                raise jsonl.diverged(line.place, "a log-probability that is not finite")
            known = (
                None if unigram is None else [_unigram(c.ids, unigram, special) for c in choices]
            )
            yield _result(one, line.place, _ways(choices, mine, known))


def _unigram(ids: np.ndarray, unigram: np.ndarray, special: Sequence[int]) -> float:
    ids = ids[(ids < len(unigram)) & ~np.isin(ids, special)]
    return float(unigram[ids].sum(dtype=np.float64))


def _ways(
    choices: Sequence[Choice], scores: Sequence[Score], unigram: Sequence[float] | None
) -> dict[str, list[float]]:
    plain = [score.logprob for score in scores]
    sizes = [max(1, one.num_bytes) for one in choices]
    ways = {
        "plain": plain,
        "per_byte": [p / size for p, size in zip(plain, sizes, strict=True)],
        "per_token": [score.logprob / score.num_tokens for score in scores],
    }
    if unigram is not None:
        ways["unigram"] = list(unigram)
        ways["unigram_per_byte"] = [p / size for p, size in zip(unigram, sizes, strict=True)]
    return ways


def _result(one: Item, place: str, scores: dict[str, list[float]]) -> Result:
    picked = {way: int(np.argmax(values)) for way, values in scores.items()}
    right = {way: index == one.answer for way, index in picked.items()}
    return Result(place if one.id is None else one.id, one.task, one.answer, scores, picked, right)


def summaries(results: Sequence[Result]) -> list[Summary]:
    """Of each task, and of all lines together where there are several."""
    by_task: dict[str, list[Result]] = {}
    for result in results:
        by_task.setdefault(result.task, []).append(result)
    if len(by_task) > 1:
        by_task[ALL] = list(results)
    return [_summary(task, some) for task, some in by_task.items()]


def _summary(task: str, results: Sequence[Result]) -> Summary:
    ways = {way: np.array([r.right[way] for r in results]) for way in results[0].right}
    chance = float(np.mean([1 / len(r.scores["plain"]) for r in results]))
    return Summary(task, len(results), chance, {way: accuracy(r) for way, r in ways.items()})


def accuracy(right_N: np.ndarray) -> Accuracy:
    """Of lines that were right or wrong.

    How many are right among N lines drawn with replacement is binomial, so the bootstrap draws
    from that.
    """
    share, count = float(right_N.mean()), len(right_N)
    drawn = np.random.default_rng(_SEED).binomial(count, share, _DRAWS) / count
    low, high = np.percentile(drawn, _TAILS)
    return Accuracy(share, float(low), float(high))


def as_json(results: Sequence[Result], model: Mapping[str, Any]) -> dict[str, Any]:
    """What is written: the model, `tasks`, and `items`, line by line."""
    tasks = {
        summary.task: {k: v for k, v in asdict(summary).items() if k != "task"}
        for summary in summaries(results)
    }
    return {"model": dict(model), "tasks": tasks, "items": [asdict(result) for result in results]}
