"""Fine-tuned models compared on the same held-out examples: groups of runs, and plain baselines.

A group is the same recipe with several seeds; its number is the mean over them. Intervals are those
of a bootstrap over examples (Koehn 2004): every resample is the same for all groups, so that the
interval of a difference is that of pairs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax import objectives, paths
from lmjax.bench.baselines import BASELINES
from lmjax.config import Config
from lmjax.data import labelled
from lmjax.errors import UserError
from lmjax.objectives.measures import Measure, draws, percentiles
from lmjax.train import answers, workdir


@dataclass(frozen=True)
class Answers:
    """What one run, or a baseline, answered.

    Attributes:
      name: of the run.
      config: its config; of a baseline that of the runs it stands beside.
      predictions, references: of all held-out examples, in order.
    """

    name: str
    config: Config
    predictions: Sequence[Any]
    references: Sequence[Any]

    def measures(self) -> dict[str, Measure]:
        """How good they are, by name."""
        found = objectives.measure(self.config, self.predictions, self.references)
        return {measure.name: measure for measure in found}


def read(path: str) -> Answers:
    """The answers of a run's newest evaluation.

    Raises:
      UserError: there is no run, or it has no answers.
    """
    path, run = workdir.existing(path)
    content = paths.read_bytes(paths.join(path, answers.FILE))
    if content is None:
        raise UserError(f"{path} has no {answers.FILE}; fine-tune there first, up to an evaluation")
    lines = [json.loads(line) for line in content.splitlines()]
    predictions, references = ([line[key] for line in lines] for key in ("prediction", "reference"))
    return Answers(path, run.config, predictions, references)


def baselines(run: Answers) -> dict[str, list[Answers]]:
    """Groups of one: the baselines of a run's task, on its own examples.

    Raises:
      UserError: the examples are not there any more.
    """
    config = run.config
    data, fields = config.data, dict(config.data.fields)
    if data.eval_path is None:
        raise UserError(
            f"{run.name} held out a part of its own file; baselines want data.eval_path"
        )
    train, test = (
        labelled.read(path, split, fields, config.tokenizer.path).records
        for path, split in ((data.path, "train"), (data.eval_path, "eval"))
    )
    return {
        name: [Answers(name, config, baseline(train, test), run.references)]
        for name, baseline in BASELINES[config.objective.name].items()
    }


@dataclass(frozen=True)
class Line:
    """A measure of a group.

    Attributes:
      group, measure: which.
      values: of each run.
      low, high: 95 % interval of their mean.
      lead: by how much the first group is ahead of this one, with its interval; None: it is it.
    """

    group: str
    measure: str
    values: tuple[float, ...]
    low: float
    high: float
    lead: tuple[float, float, float] | None

    @property
    def mean(self) -> float:
        """Over the runs."""
        return float(np.mean(self.values))


def lines(groups: Mapping[str, Sequence[Answers]]) -> list[Line]:
    """All measures of all groups, measure by measure.

    Raises:
      UserError: two runs answered different examples.
    """
    all_runs = [run for runs in groups.values() for run in runs]
    for run in all_runs[1:]:
        if list(run.references) != list(all_runs[0].references):
            raise UserError(
                f"{run.name} and {all_runs[0].name} answered different examples; compare runs of "
                "the same data.eval_path"
            )
    measured = {name: [run.measures() for run in runs] for name, runs in groups.items()}
    counts_RN = draws(len(all_runs[0].references))
    found = []
    for name in next(iter(measured.values()))[0]:
        first = None
        for group, runs in measured.items():
            resampled_R = np.mean([run[name].resampled(counts_RN) for run in runs], axis=0)
            values = tuple(run[name].value for run in runs)
            low, high = percentiles(resampled_R)
            lead = None
            if first is None:
                first = np.mean(values), resampled_R
            else:
                ends = percentiles(first[1] - resampled_R)
                lead = (float(first[0] - np.mean(values)), *ends)
            found.append(Line(group, name, values, low, high, lead))
    return found


def markdown(found: Sequence[Line]) -> str:
    """A table with a row for each group, and a column for each measure."""
    names = list(dict.fromkeys(line.measure for line in found))
    rows = [["", *(f"{name} | lead over it" for name in names)]]
    for group in dict.fromkeys(line.group for line in found):
        of_group = {line.measure: line for line in found if line.group == group}
        cells = [f"{_value(of_group[name])} | {_lead(of_group[name])}" for name in names]
        rows.append([group, *cells])
    width = 1 + 2 * len(names)
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * width, *rest])


def _value(line: Line) -> str:
    digits = 1 if line.measure in ("bleu", "chrf") else 3
    return f"{line.mean:.{digits}f} ({line.low:.{digits}f} to {line.high:.{digits}f})"


def _lead(line: Line) -> str:
    if line.lead is None:
        return ""
    digits = 1 if line.measure in ("bleu", "chrf") else 3
    value, low, high = line.lead
    beyond = "" if low > 0 or high < 0 else ", not beyond chance"
    return f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}{beyond})"
