"""Completions of prompts: each record comes back with what the model writes, as ids and as text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from lmjax.data.progress import Progress
from lmjax.errors import UserError
from lmjax.infer import jsonl
from lmjax.infer.generate import Generated, Generator
from lmjax.infer.prompts import Asked, Prompts
from lmjax.infer.stop import StopStrings

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Completer:
    """Completes prompts with one model; run it in the mesh's context.

    Attributes:
      prompts: of the model.
      generator: of the model.
      params: its parameters.
      seed: of the noise, 0 to `MAX_SEED`.
      num_samples: completions of each prompt, apart in their noise only.
      stop: strings that end a text; they are no part of it.

    Raises:
      UserError: a number is out of its range, or strings are to be found where there is no text.
    """

    prompts: Prompts
    generator: Generator
    params: Any
    seed: int = 0
    num_samples: int = 1
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"seed={self.seed} is outside [0, {MAX_SEED}]; take another one")
        if self.num_samples < 1:
            raise UserError(f"num_samples={self.num_samples} asks for nothing; give 1 or more")
        if self.stop and not self.prompts.knows_text:
            raise UserError(
                "this model was imported without its tokenizer, so there is no text to find a stop "
                "string in; leave --stop out"
            )

    @property
    def _stop(self) -> StopStrings | None:
        return StopStrings(self.stop, self.prompts.text) if self.stop else None

    def ask(self, record: dict[str, Any]) -> Asked:
        """The prompt of a JSON object.

        Raises:
          UserError: it is none, or the model has no room for it and its completion.
        """
        asked = self.prompts(record)
        self.generator.check(asked.ids)
        return asked

    def __call__(
        self,
        asked: Sequence[Asked],
        first: int = 0,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[list[dict[str, Any]]]:
        """What is to be added to each prompt's record, for each sample.

        Args:
          asked: the prompts.
          first: number of the first among all, of which the noise is made.
          progress: told (completions done, completions).
        """
        each = range(self.num_samples)
        found = self.generator(
            self.params,
            [prompt.ids for prompt in asked for _ in each],
            seed=self.seed,
            stop=self._stop,
            progress=progress,
            numbers=[
                number | sample << 32
                for number in range(first, first + len(asked))
                for sample in each
            ],
        )
        results = iter(found)
        return [
            [self._fields(prompt, next(results), sample) for sample in each] for prompt in asked
        ]

    def _fields(self, asked: Asked, found: Generated, sample: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self.prompts.knows_text:
            text = self.prompts.text(found.ids)
            fields["completion"] = self._stop.cut(text) if self.stop else text
        fields["completion_ids"] = found.ids.tolist()
        fields |= {"num_tokens": len(found.ids), "finish_reason": found.finish_reason}
        if asked.has_spans:
            fields["filled"] = self.prompts.filled(asked, found.ids)
        return fields | ({"sample": sample} if self.num_samples > 1 else {})


@dataclass
class Summary:
    """What was written."""

    num_prompts: int = 0
    num_tokens: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        speed = self.num_tokens / self.seconds if self.seconds else 0.0
        return (
            f"{self.num_prompts:,} prompts, {self.num_tokens:,} tokens, {self.seconds:.1f} s, "
            f"{speed:,.0f} tokens per second"
        )


def one(record: dict[str, Any], completer: Completer) -> list[dict[str, Any]]:
    """A record with each of its completions.

    Raises:
      UserError: it is no prompt.
    """
    (samples,) = completer([completer.ask(record)])
    return [record | fields for fields in samples]


def shown(completed: Sequence[dict[str, Any]], *, continues: bool) -> str:
    """Completions as a person reads them.

    Args:
      completed: from `one`, whose record was a text.
      continues: whether they go on with the prompt, as a decoder's do.
    """
    parts = []
    for record in completed:
        lines = [record["prompt"] * continues + record["completion"]]
        if "filled" in record:
            lines.append(f"filled: {record['filled']}")
        lines.append(f"({record['num_tokens']} tokens, {record['finish_reason']})")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def complete(
    files: Sequence[str],
    output: BinaryIO,
    completer: Completer,
    progress: Progress = lambda done, total, tokens: None,
) -> Summary:
    """Writes each line back with its completion; with several samples, once for each.

    Args:
      files: from `jsonl.find`.
      output: gets the lines, UTF-8.
      completer: run in the mesh's context.
      progress: told after each batch.

    Raises:
      UserError: a line is no JSON object, or no prompt.
    """
    began, summary = time.monotonic(), Summary()
    for lines, on_batch in jsonl.read(files, progress):
        asked = jsonl.made(lines, completer.ask)
        told = lambda done, of, on_batch=on_batch: on_batch(done, of, 0)
        completions = completer(asked, summary.num_prompts, told)
        for line, samples in zip(lines, completions, strict=True):
            summary.num_prompts += 1
            for fields in samples:
                output.write(jsonl.dumped(line.record | fields))
                summary.num_tokens += fields["num_tokens"]
    summary.seconds = time.monotonic() - began
    return summary
