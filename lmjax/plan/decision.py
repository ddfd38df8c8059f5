"""Ladders on a text, their fits, and what is recommended: all that `tools/plan.py --data` says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmjax import paths
from lmjax.errors import UserError
from lmjax.plan import choose, climbing, ladder, plan, scaling
from lmjax.plan.choose import Budget, Candidate, Choice
from lmjax.plan.ladder import Rung, Size, Text
from lmjax.plan.plan import Asked
from lmjax.plan.scaling import Fit
from lmjax.plan.topology import Topology
from lmjax.plan.variants import VARIANTS, Variant

_CURVE = 25  # points of a drawn line


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
      data: raw text.
      hours: to spend on the topology.
      topology: where.
      asked: MFU, and the share of raw text that curation keeps.
      task: that the model is for; None: none was said.
      variants: whose ladders are trained; the first is recommended.
      folder: of the ladders' runs.
      size: of the ladders.
      workers: runs at a time; None: one per core.
      below: nats below word frequencies that a run has to come.
    """

    data: str
    hours: float
    topology: Topology
    asked: Asked
    task: str | None
    variants: tuple[str, ...]
    folder: Path
    size: Size = field(default_factory=Size)
    workers: int | None = None
    below: float = ladder.ABOVE_PLATEAU


def variants_of(task: str | None, names: Sequence[str] | None) -> tuple[str, ...]:
    """Which ladders to train: the variant of the task first, and others that are asked for.

    Args:
      task: a key of `choose.TASKS`, or None.
      names: of variants; None: that of the task alone, or a decoder.

    Raises:
      UserError: there is no such task or variant.
    """
    if task is not None and task not in choose.TASKS:
        raise UserError(f"--task={task} is not known; there are {', '.join(choose.TASKS)}")
    for name in names or ():
        if name not in VARIANTS:
            raise UserError(f"--variants={name} is not known; there are {', '.join(VARIANTS)}")
    first = choose.TASKS[task] if task else (names or ["decoder"])[0]
    return tuple(dict.fromkeys([first, *(names or ())]))


def make(question: Question, tell: Callable[[str], None]) -> dict[str, Any]:
    """Trains the ladders and answers; as JSON has it.

    Args:
      question: to answer.
      tell: is told what goes on, line by line.

    Raises:
      UserError: there is too little text or budget, or a ladder says nothing.
    """
    budget = _budget(question)
    text = ladder.prepare(question.data, question.folder / "text", question.size, tell)
    runs = {
        name: ladder.rungs(VARIANTS[name], text, question.folder / "runs", question.size)
        for name in question.variants
    }
    found: dict[str, Any] = {
        "text": dataclasses.asdict(text) | {"bytes_per_token": text.bytes_per_token},
        "vocab_size": question.size.vocab_size,
        "task": question.task,
        "variant": question.variants[0],
        "budget": _budget_dict(question, budget),
        "variants": {},
    }
    for name, its in runs.items():
        tell(f"{name}: {len(its)} runs, {sum(r.result() is not None for r in its)} of them done")
        seconds = climbing.train(its, tell, question.workers)
        found["variants"][name] = _of_variant(question, VARIANTS[name], text, its, budget, tell)
        found["variants"][name]["seconds"] = seconds
    return found


def _budget(question: Question) -> Budget:
    if not question.hours > 0:
        raise UserError(f"--budget={question.hours:g} is no time; give hours above 0")
    topology = question.topology
    rate = topology.peak * question.asked.mfu
    return Budget(question.hours, rate, len(topology.devices))


def _budget_dict(question: Question, budget: Budget) -> dict[str, Any]:
    return {
        "hours": budget.hours,
        "topology": question.topology.name,
        "devices": budget.devices,
        "kind": question.topology.devices[0].device_kind,
        "mfu": question.asked.mfu,
        "flops_per_second": budget.rate,
        "flops": budget.flops,
        "keep_rate": sorted(question.asked.keep),
    }


def _of_variant(
    question: Question,
    variant: Variant,
    text: Text,
    runs: Sequence[Rung],
    budget: Budget,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """All about one variant."""
    points = ladder.points(runs, question.below)
    fit = scaling.fit(points)
    choice = choose.choose(fit, variant, text, budget)
    largest = points.params.max(), points.tokens.max()
    raw = lambda tokens: sorted(
        round(tokens * text.bytes_per_token / share) for share in question.asked.keep
    )
    runs_of = {"run": choice.run, "free": choice.free}
    return {
        "loss": variant.loss,
        "runs": ladder.table(runs),
        "fit": fit_dict(fit, points),
        "curves": curves(fit, variant, points, budget),
        "choice": choice_dict(choice),
        "extrapolated": {
            key: [run.candidate.params / largest[0], run.tokens / largest[1]]
            for key, run in runs_of.items()
        },
        "raw_text_bytes": {key: raw(run.tokens) for key, run in runs_of.items()},
        **_planned(question, choice, tell),
    }


def fit_dict(fit: Fit, points: scaling.Points) -> dict[str, Any]:
    """Medians and intervals of the form's numbers."""
    numbers = dict(zip(("E", "a", "b"), fit.coefficients.T, strict=True))
    numbers |= dict(zip(("alpha", "beta"), fit.exponents.T, strict=True)) | {"noise": fit.noise}
    ends = [(1 - scaling.LEVEL) / 2, 0.5, (1 + scaling.LEVEL) / 2]
    found = {name: np.quantile(values, ends).tolist() for name, values in numbers.items()}
    residual = points.loss - np.median(fit.losses(points.params, points.tokens), axis=0)
    about = {"params": fit.params, "tokens": fit.tokens, "level": scaling.LEVEL}
    return about | found | {"residual": float(np.sqrt(np.mean(residual**2)))}


def curves(
    fit: Fit, variant: Variant, points: scaling.Points, budget: Budget
) -> dict[str, dict[str, list[float]]]:
    """Predicted losses with their ends: against size for the longest runs, and against compute."""
    params = np.geomspace(points.params.min(), 10 * points.params.max(), _CURVE)
    by_size = fit.interval(params, np.full(_CURVE, points.tokens.max()))
    models = choose.candidates(variant)
    cost_M = np.array([model.flops_per_token for model in models])
    params_M = np.array([model.params for model in models], float)
    least = points.tokens.min() * cost_M[0]
    compute = np.geomspace(least, max(3 * budget.flops, 10 * least), _CURVE)
    best = []
    for flops in compute:
        losses = choose.losses(fit, params_M, flops / cost_M)
        best.append(np.quantile(losses[:, losses.mean(axis=0).argmin()], [0.05, 0.5, 0.95]))
    by_compute = np.array(best).T
    names = ("low", "loss", "high")
    return {
        "size": {"x": params.tolist()} | dict(zip(names, by_size.tolist(), strict=True)),
        "compute": {"x": compute.tolist()} | dict(zip(names, by_compute.tolist(), strict=True)),
    }


def choice_dict(choice: Choice) -> dict[str, Any]:
    """The recommendation as JSON has it."""
    return {
        "train": choice.train,
        "why": choice.why,
        "run": _run_dict(choice.run),
        "free": _run_dict(choice.free),
        "sizes": list(choice.sizes),
        "text_share": choice.text_share,
        "lost": choice.lost,
        "published": dataclasses.asdict(choice.published) | {"passes": choice.passes},
    }


def _run_dict(run: choose.Run) -> dict[str, Any]:
    model = run.candidate
    return {
        "shape": str(model.shape),
        "hidden_size": model.shape.hidden_size,
        "num_layers": model.shape.num_layers,
        "params": model.params,
        "all_params": model.all_params,
        "vocab_size": model.vocab_size,
        "seq_len": model.seq_len,
        "tokens": run.tokens,
        "flops": run.flops,
        "loss": list(run.loss),
    }


def _planned(
    question: Question, choice: Choice, tell: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """The best run with this text on the topology, and the file to start it with."""
    run = choice.run
    model: Candidate = run.candidate
    fields = model.fields(run.tokens, len(question.topology.devices))
    config = model.variant.resolved(fields, model.vocab_size)
    made = plan.make(config, question.topology, question.asked, tell)
    found = plan.as_dict(made)
    file = question.folder / f"{model.variant.name}.py"
    about = f"{model.variant.name}, {model.shape}, {run.tokens:,.0f} tokens"
    fields["data"] |= {"path": question.data}
    for name, value in (made.way or {}).items():
        group, key = name.split(".")
        fields.setdefault(group, {})[key] = value
    paths.write_bytes(file, ladder.config_file(about, fields).encode())
    keys = ("fits", "basis", "memory", "way", "time", "roofline", "collectives")
    told = {key: found[key] for key in keys if key in found}
    told["hours"] = 24 * found["time"]["days"]
    steps = {"steps": config.train.num_steps, "rows": config.train.global_batch_size}
    return {"plan": told | steps, "config": {"file": str(file), "fields": fields}}
