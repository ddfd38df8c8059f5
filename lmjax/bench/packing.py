"""What packing is worth: how full rows are, and how many real tokens a second a run trains on.

Stream, document and pack make rows of the same shape, so one compiled step serves all. They are
timed in one run, in alternating blocks of steps: first with batches that lie ready, then with
batches from the input pipeline, as in a run. Real tokens a second are steps a second, medians over
the blocks, times the real tokens of an average batch. Ratios are medians over rounds of the ratio
within a round, since other work on a machine comes and goes.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lmjax import fields
from lmjax.batch import Batch
from lmjax.bench import input as input_bench
from lmjax.bench.stepper import Stepper
from lmjax.config import Config
from lmjax.data import pipeline
from lmjax.data.pipeline import TrainBatches
from lmjax.train import data as data_lib
from lmjax.train import setup
from lmjax.train.data import Stores
from lmjax.train.setup import Program, Steps

PACKINGS = ("stream", "document", "pack")

_BASE = "document"  # what the others are held against
_READY = 8  # batches made beforehand
_ENDLESS = 1 << 40  # steps


@dataclass(frozen=True)
class Kind:
    """How steps are timed: in blocks of at least so many of them, and seconds."""

    steps: int
    seconds: float


# The pipeline reads ahead while the others are timed, so there it takes more than a few steps.
KINDS = {"step": Kind(2, 0.25), "input": Kind(8, 1.0)}


@dataclass(frozen=True)
class Rate:
    """Real tokens (no padding, as `metrics.jsonl` counts them) that are trained a second.

    Attributes:
      tokens: a second.
      steps: a second.
      ratio: of the tokens to those of one document a row.
      rounds: blocks that these are the medians of.
    """

    tokens: float
    steps: float
    ratio: float
    rounds: int


@dataclass(frozen=True)
class PackingRates:
    """Of one packing.

    Attributes:
      num_rows: rows of an epoch.
      fill: as `lmjax.bench.input.fill`.
      step: with batches that lie ready.
      input: with the input pipeline running.
    """

    num_rows: int
    fill: dict[str, float]
    step: Rate
    input: Rate

    def as_dict(self) -> dict[str, Any]:
        figures: dict[str, Any] = {"rows_per_epoch": self.num_rows, "fill": self.fill}
        for kind in KINDS:
            rate = getattr(self, kind)
            figures[kind] = {
                "trained_tokens_per_second": rate.tokens,
                "steps_per_second": rate.steps,
                "ratio_to_document": rate.ratio,
                "rounds": rate.rounds,
            }
        return figures


def measure(config: Config, stores: Stores, seconds: float = 60.0) -> dict[str, PackingRates]:
    """Times training steps of a config with each packing, on all devices.

    Args:
      config: resolved.
      stores: its text.
      seconds: how long in all, compilation apart.

    Returns:
      Packing -> its rates.
    """
    ids = setup.make_ids(config, stores.tokenizer)
    program = setup.make_program(config, ids=ids)
    batches = {name: _batches(program, stores, name) for name in PACKINGS}
    tables = data_lib.open_data(config, stores, program.objective, program.eval_objective).tables
    with program.context():
        return _measure(program, setup.make_steps(program, tables), batches, seconds)


def _batches(program: Program, stores: Stores, packing: str) -> TrainBatches:
    changes = {"data.packing": packing}
    if packing != "stream":
        changes["data.cross_documents"] = None  # of a stream only
    config = fields.replace(program.config, changes)
    return data_lib.all_train_batches(config, stores, program.objective)


def _measure(
    program: Program, steps: Steps, batches: dict[str, TrainBatches], seconds: float
) -> dict[str, PackingRates]:
    stepper, workers = Stepper(steps, program.init()), program.config.data.num_workers
    ready = {name: [made(i) for i in range(_READY)] for name, made in batches.items()}
    stepper.block(iter(ready[_BASE]), 1, 0.0)  # compiles
    fills = {name: input_bench.fill(made) for name, made in batches.items()}
    spec = program.objective.spec(len(batches[_BASE].rows))
    places = sum(math.prod(spec[name][0]) for name in spec if name.endswith("segment_ids"))
    tokens = {name: found["read"] * places for name, found in fills.items()}
    sources = {name: itertools.cycle(several) for name, several in ready.items()}
    step = _rounds(stepper, sources, tokens, KINDS["step"], seconds / 2)
    sources = {n: pipeline.iterate(b, 0, _ENDLESS, workers) for n, b in batches.items()}
    with_input = _rounds(stepper, sources, tokens, KINDS["input"], seconds / 2)
    return {
        name: PackingRates(sum(map(len, made.sources)), fills[name], step[name], with_input[name])
        for name, made in batches.items()
    }


def _rounds(
    stepper: Stepper,
    sources: dict[str, Iterator[Batch]],
    tokens: dict[str, float],
    kind: Kind,
    seconds: float,
) -> dict[str, Rate]:
    """Blocks of all sources in turn, for about so long and at least once.

    Args:
      stepper: trains.
      sources: batches of each packing.
      tokens: real ones of an average batch of each.
      kind: of the blocks.
      seconds: how long in all.
    """
    steps: dict[str, list[float]] = {name: [] for name in sources}
    block_seconds = min(kind.seconds, seconds / len(sources))
    end = time.monotonic() + seconds
    while time.monotonic() < end or not steps[_BASE]:
        for name, source in sources.items():
            steps[name].append(stepper.block(source, kind.steps, block_seconds))
    rates = {}
    for name, found in steps.items():
        faster = statistics.median(a / b for a, b in zip(found, steps[_BASE], strict=True))
        median = statistics.median(found)
        ratio = faster * tokens[name] / tokens[_BASE]
        rates[name] = Rate(median * tokens[name], median, ratio, len(found))
    return rates
