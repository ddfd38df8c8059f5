"""What a model answers to held-out examples, and how good that is.

The answers go to `predictions.jsonl` in the workdir, those of the newest evaluation: what to look
at when a number is not what was hoped for, and what paired comparisons of two models are made of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from lmjax import objectives
from lmjax.batch import INFO_PREFIX, SOURCE, Encoder, Example, device_fields
from lmjax.config import Config
from lmjax.data.labelled import ExampleRows, TextEncoder
from lmjax.data.pipeline import EvalBatches
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.infer.generate import Generator
from lmjax.infer.prompts import Prompts
from lmjax.objectives import measures
from lmjax.train.samples import Sample
from lmjax.train.setup import Program, decoder_start_id
from lmjax.train.step import make_predict_step

FILE = "predictions.jsonl"


@dataclass(frozen=True)
class Answer:
    """One example's.

    Attributes:
      place: file, and line or row in it, counted from 1.
      prediction: what the model says.
      reference: what is right.
    """

    place: tuple[str, int]
    prediction: Any
    reference: Any


@dataclass(frozen=True)
class Answering:
    """Asks a model.

    Attributes:
      config: of the run.
      encoder: of its text.
      predict: (parameters, device batch) -> logits; where the head says the answers.
      write: (parameters, prompts, progress) -> ids of the answers; where the model writes them.
      place: host batch -> device batch.
    """

    config: Config
    encoder: Encoder
    predict: Callable[[Any, dict[str, jax.Array]], jax.Array]
    write: Callable[..., Sequence[np.ndarray]] | None
    place: Callable[[dict], dict[str, jax.Array]]

    def __call__(
        self,
        params: Any,
        batches: EvalBatches,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[Answer]:
        """The answers to all examples of `batches`, in their order.

        Args:
          params: of the model.
          batches: held-out chunks.
          progress: told now and then (how many are answered, of how many).
        """
        asked = list(_examples(batches))
        outputs: Iterator[np.ndarray]
        if self.write is None:
            outputs = self._logits(params, batches, progress)
        else:
            prompts = [rows.objective.prompt(rows.examples[i]) for rows, i in asked]
            outputs = iter(self.write(params, prompts, progress))
        return [
            self._answer(rows, rows.examples[i], rows.store.origin(i), output)
            for (rows, i), output in zip(asked, outputs, strict=True)
        ]

    def _logits(
        self, params: Any, batches: EvalBatches, progress: Callable[[int, int], None]
    ) -> Iterator[np.ndarray]:
        for chunk in range(len(batches)):
            progress(chunk, len(batches))
            batch = batches(chunk)
            logits_BPC = np.asarray(self.predict(params, self.place(device_fields(batch))))
            for slot, _ in _real_rows(batches, batch):
                yield logits_BPC[slot]

    def _answer(
        self, rows: ExampleRows, example: Example, place: tuple[str, int], output: np.ndarray
    ) -> Answer:
        said = rows.objective.answer(output, example, self.encoder)
        return Answer((place[0], place[1] + 1), said, example.reference)

    def samples(self, batches: EvalBatches, answers: Sequence[Answer], number: int) -> list[Sample]:
        """The same `number` of the answers each time, spread over all of them."""
        if not number:
            return []
        asked = list(_examples(batches))
        chosen = range(0, len(answers), max(1, len(answers) // number))[:number]
        return [
            Sample(index, self._read(*asked[i]), _text(a.prediction), _text(a.reference))
            for index, (i, a) in enumerate((i, answers[i]) for i in chosen)
        ]

    def _read(self, rows: ExampleRows, index: int) -> str:
        """What the model reads of an example, without special ids."""
        example = rows.examples[index]
        is_head = self.write is None
        return self.encoder.decode(
            example.row["inputs"] if is_head else rows.objective.prompt(example)
        )

    def measures(self, answers: Sequence[Answer]) -> dict[str, float]:
        """Fields of a row of metrics."""
        predictions, references = zip(*((a.prediction, a.reference) for a in answers), strict=True)
        return measures.row(objectives.measure(self.config, predictions, references))


def make(program: Program, tokenizer: AnyTokenizer) -> Answering | None:
    """What asks the model of a program; None where there are no labelled examples to ask about.

    Raises:
      UserError: a library that judges answers is not installed.
    """
    if not objectives.is_labelled(program.config):
        return None
    measures.require()
    predict = make_predict_step(program.model, program.shardings.params, program.batch_sharding)
    write = None
    if (most := program.objective.writes) is not None:
        generator = Generator(
            program.model,
            program.batch_sharding,
            eos_id=tokenizer.eos_id,
            max_new_tokens=most,
            decoder_start_id=decoder_start_id(program.config, tokenizer),
            forced_first_id=tokenizer.bos_id if program.config.objective.begins_with_bos else None,
            allowed=Prompts.of(program.config, tokenizer, None).allowed(),
        )
        write = lambda params, prompts, progress: [
            found.ids for found in generator(params, prompts, progress=progress)
        ]
    return Answering(program.config, TextEncoder(tokenizer), predict, write, program.place)


def _examples(batches: EvalBatches) -> Iterator[tuple[ExampleRows, int]]:
    for rows, number in zip(batches.sources, batches.num_rows, strict=True):
        for index in range(number):
            yield rows, index


def _real_rows(batches: EvalBatches, batch: dict) -> Iterator[tuple[int, int]]:
    """(row of the batch, example of its source), without padding."""
    source_R = batch.get(SOURCE, np.zeros(len(batch["inputs"]), np.int32)).tolist()
    for slot, index in enumerate(batch[INFO_PREFIX + "window"].tolist()):
        if index < len(batches.sources[source_R[slot]]):
            yield slot, index


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def to_lines(answers: Sequence[Answer]) -> bytes:
    """The content of the file."""
    lines = (
        {
            "file": answer.place[0],
            "line": answer.place[1],
            "prediction": answer.prediction,
            "reference": answer.reference,
        }
        for answer in answers
    )
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode(
        errors="surrogatepass"
    )
