"""What a matched comparison came to: numbers from the files of its runs, for JSON.

Everything that the page says is in the dictionary made here, so that the page can be made again
without the runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmjax import flops, objectives
from lmjax.batch import Ids
from lmjax.bench import compare, intervals, report
from lmjax.bench.intervals import Interval
from lmjax.bench.jobs import Runner
from lmjax.bench.matched import TASKS, VARIANTS, Plan
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.objectives import measures
from lmjax.objectives.measures import Measure
from lmjax.train import workdir

WAY = "per_byte"  # of scoring choices, as lm-eval's acc_norm has it
_SCALED = ("bleu", "chrf")  # between 0 and 100 as they are


@dataclass(frozen=True)
class Judged:
    """Values of each seed, and of resamples of the examples their mean."""

    values: tuple[float, ...]
    resampled_R: np.ndarray


def collect(plan: Plan, counts: Mapping[str, Mapping[str, int]], runner: Runner) -> dict[str, Any]:
    """All numbers of what has ended well.

    Args:
      plan: of the comparison.
      counts: task -> examples to train on and to test, of `Plan.prepare`.
      runner: which ran it.

    Raises:
      UserError: nothing is there.
    """
    pretrained = [
        one
        for size in plan.sizes
        for variant in VARIANTS
        for seed in (plan.seeds if size == plan.main else plan.seeds[:1])
        if (one := _pretrained(plan, size, variant, seed, runner)) is not None
    ]
    if not pretrained:
        raise UserError(f"{plan.workdir} has no pre-training that is done; run them first")
    rows = [row for row in (_choices(plan), *map(_task(plan), plan.tasks())) if row]
    flat = [row for some in rows for row in some]
    ends = [runner.end(job.name) for job in plan.jobs()]
    return {
        "what": "matched comparison",
        "main": plan.main,
        "seeds": list(plan.seeds),
        "vocab_size": plan.vocab_size,
        "examples": {task: dict(numbers) for task, numbers in counts.items()},
        "missing": {task: TASKS[task].missing for task in plan.tasks() if TASKS[task].missing},
        "pretrained": pretrained,
        "rows": flat,
        "seconds": sum(end.seconds for end in ends if end is not None),
        "commands": _commands(plan),
        **report.environment(),
    }


def _pretrained(
    plan: Plan, size: str, variant: str, seed: int, runner: Runner
) -> dict[str, Any] | None:
    """One pre-training; None: it is not done."""
    end = runner.end(f"pretrain_{size}/{variant}_{seed}")
    if end is None or end.code:
        return None
    folder = plan.pretrained(size, variant, seed)
    config = workdir.read(folder).config
    parts = flops.num_params(config.model)
    table = config.model.vocab_size * config.model.hidden_size
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    held_out = [row for row in map(json.loads, lines) if row["split"] == "eval"]
    last, rows = held_out[-1], config.train.num_steps * config.train.global_batch_size
    return {
        "size": size,
        "variant": variant,
        "seed": seed,
        "parameters": sum(parts.values()),
        "non_embedding": sum(parts.values()) - table,
        "width": config.model.hidden_size,
        "tokens": rows * _window(config),
        "flops": rows * flops.flops_per_row(config.model, _lengths(config)).full,
        "steps": config.train.num_steps,
        "learning_rate": config.optimizer.learning_rate,
        "optimizer": config.optimizer.name,
        "objective": config.objective.name,
        "seconds": round(end.seconds, 1),
        "content_loss": last["content_loss"],
        "content_unigram_loss": last["content_unigram_loss"],
        "bits_per_byte": last.get("bits_per_byte"),
        "curve": [
            [row["step"] / config.train.num_steps * rows * _window(config), row["content_loss"]]
            for row in held_out
        ],
    }


def _lengths(config: Config) -> flops.Lengths:
    """Positions of a row."""
    ids = Ids(num_ids=config.tokenizer.vocab_size, num_rows=config.model.vocab_size)
    return flops.lengths(objectives.make(config, ids).spec(1))


def _window(config: Config) -> int:
    """Tokens of text in a row: without the two that masked LM and denoising put around it."""
    return config.data.seq_len - (0 if config.objective.name == "clm" else 2)


def _choices(plan: Plan) -> list[dict[str, Any]]:
    """The row of zero-shot choices."""
    judged: dict[str, Judged] = {}
    unigram = chance = None
    for variant in VARIANTS:
        files = [plan.chosen(variant, seed) for seed in plan.seeds]
        found = [json.loads(file.read_text()) for file in files if file.exists()]
        if not found:
            continue
        right = [np.array([item["right"][WAY] for item in one["items"]], float) for one in found]
        judged[variant] = _judged([100 * np.asarray(r) for r in right])
        summary = next(iter(found[0]["tasks"].values()))
        chance = 100 * summary["chance"]
        unigram = summary["accuracy"].get("unigram_per_byte")
    if not judged:
        return []
    plain = None if unigram is None else ("unigram model", 100 * unigram["value"])
    more = {"examples": plan.choices, "chance": chance}
    return [_row("choices", "accuracy, %", judged, plain) | more]


def _judged(numbers: Sequence[np.ndarray]) -> Judged:
    """Of numbers of each example, whose mean is the measure."""
    return _of_measures([measures.mean("mean", values) for values in numbers])


def _of_measures(found: Sequence[Measure]) -> Judged:
    counts_RN = measures.draws(len(found[0].numbers_NS))
    resampled_R = np.mean([one.resampled(counts_RN) for one in found], axis=0)
    return Judged(tuple(one.value for one in found), resampled_R)


def _task(plan: Plan):
    """task -> its rows."""

    def rows(task: str) -> list[dict[str, Any]]:
        answers: dict[str, list[compare.Answers]] = {}
        for variant in TASKS[task].objectives:
            folders = [plan.finetuned(task, variant, seed) for seed in plan.seeds]
            done = [folder for folder in folders if (folder / "predictions.jsonl").exists()]
            if done:
                answers[variant] = [compare.read(str(folder)) for folder in done]
        if not answers:
            return []
        by_measure: dict[str, dict[str, Judged]] = {}
        for variant, runs in answers.items():
            for name in _MEASURES[task]:
                found = [_measured(task, run)[name] for run in runs]
                by_measure.setdefault(name, {})[variant] = _of_measures(found)
        plain = _plain(task, answers)
        return [_row(task, name, judged, plain[name]) for name, judged in by_measure.items()]

    return rows


_MEASURES = {
    "sentiment": ("accuracy",),
    "questions": ("f1", "exact_match"),
    "entities": ("f1",),
    "summaries": ("rougeL",),
    "translation": ("chrf", "bleu"),
}


def _measured(task: str, run: compare.Answers) -> dict[str, Measure]:
    """Measures of a run's answers, between 0 and 100; the same way whatever its objective."""
    said, right = list(run.predictions), list(run.references)
    if task == "sentiment":
        same = [p == r for p, r in zip(said, right, strict=True)]
        found = [measures.mean("accuracy", same)]
    elif task == "questions":
        found = measures.answers(said, [[r] if isinstance(r, str) else r for r in right])
    else:
        found = list(run.measures().values())
    return {one.name: _percent(one) for one in found}


def _percent(one: Measure) -> Measure:
    if one.name in _SCALED:
        return one
    of_sums = lambda sums: 100 * one.of_sums(sums)
    return Measure(one.name, 100 * one.value, one.numbers_NS, of_sums)


def _plain(task: str, answers: Mapping[str, Sequence[compare.Answers]]) -> dict[str, Any]:
    """Of each measure, the best baseline without a network: (name, value), or None."""
    best: dict[str, Any] = dict.fromkeys(_MEASURES[task])
    variant = "encoder" if "encoder" in answers else "encoder_decoder"
    if variant not in answers:
        return best
    for name, (baseline,) in compare.baselines(answers[variant][0]).items():
        found = _measured(task, baseline)
        for measure in best:
            value = found[measure].value
            if best[measure] is None or value > best[measure][1]:
                best[measure] = (name, value)
    return best


def _row(
    task: str, measure: str, judged: Mapping[str, Judged], plain: tuple[str, float] | None
) -> dict[str, Any]:
    """A row of the table: each variant's number, the best, and its leads over the others."""
    of = {
        variant: {
            "values": list(one.values),
            **_ends(intervals.of_mean(one.values, one.resampled_R)),
        }
        for variant, one in judged.items()
    }
    best = max(of, key=lambda variant: of[variant]["value"])
    leads = {
        variant: _ends(
            intervals.of_lead(
                judged[best].values, one.values, judged[best].resampled_R, one.resampled_R
            )
        )
        for variant, one in judged.items()
        if variant != best
    }
    named = None if plain is None else {"name": plain[0], "value": plain[1]}
    return {
        "task": task,
        "measure": measure,
        "of": of,
        "best": best,
        "leads": leads,
        "plain": named,
    }


def _ends(one: Interval) -> dict[str, float | None]:
    return {k: None if np.isnan(v) else v for k, v in asdict(one).items()}


def _commands(plan: Plan) -> list[str]:
    """One command of each kind, as it could be typed, without the folders of this machine."""
    seen: dict[str, str] = {}
    for job in plan.jobs():
        words = ["python", *job.command[1:]]
        line = " ".join(words).replace(str(plan.workdir), "runs")
        for path, name in ((plan.data, "text.jsonl"), (plan.held_out, "held_out.jsonl")):
            line = line.replace(path, name)
        seen.setdefault(job.name.rpartition("_")[0] if "/" in job.name else job.name, line)
    return list(seen.values())


def write(found: Mapping[str, Any], file: Path) -> None:
    """Writes them as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
