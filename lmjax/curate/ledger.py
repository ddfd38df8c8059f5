"""The ledger of a curation: what came, what stayed, what went and by which rule.

`DIR/ledger.json`, written last: a folder with one is finished.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from datatrove.pipeline.base import PipelineStep

from lmjax.curate import cleaning, tally
from lmjax.curate.recipe import Recipe
from lmjax.curate.tally import Amount, Tally
from lmjax.data import files as files_lib
from lmjax.data import store
from lmjax.errors import UserError

FILE = store.LEDGER
FORMAT = 1

# Beginnings of rules' names -> the step that they belong to, in the order of the funnel.
STEP_OF = {
    "unreadable": "read",
    "extract": "extract",
    "repair": "repair",
    "language": "language",
    "block": "block lists",
    "repetition": "quality",
    "gopher": "quality",
    "c4": "quality",
    "fineweb": "quality",
    "classifier": "classifier",
    "contaminated": "decontaminate",
    "exact": "exact duplicates",
    "near": "near duplicates",
    "cap": "caps",
}


def step_of(rule: str) -> str:
    """The step that drops by a rule."""
    return STEP_OF[rule.split("_")[0]]


class Finish(PipelineStep):
    """Adds up the tallies of all tasks and writes the ledger."""

    name, type = "finish", "lmjax"

    def __init__(
        self, recipe: Recipe, folder: str, tasks: Mapping[str, int], head: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._recipe, self._folder = recipe, folder
        self._tasks, self._head = dict(tasks), dict(head)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        stages, files = {}, {}
        for stage, tasks in self._tasks.items():
            seals = [cleaning.sealed(self._folder, stage, rank) for rank in range(tasks)]
            missing = [rank for rank, seal in enumerate(seals) if seal is None]
            if missing:
                raise UserError(
                    f"{self._folder}: task {missing[0]} of {stage} is not done; give the same "
                    "command again"
                )
            stages[stage] = tally.total(Tally.from_dict(seal["tally"]) for seal in seals)
            files |= {name: sum for seal in seals for name, sum in seal["files"].items()}
        found = make(self._recipe, self._head, stages, files)
        files_lib.write_whole(
            os.path.join(self._folder, FILE),
            (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode(),
        )


def make(
    recipe: Recipe,
    head: Mapping[str, Any],
    stages: Mapping[str, Tally],
    files: Mapping[str, str],
) -> dict[str, Any]:
    """The ledger.

    Raises:
      UserError: a document is neither kept nor dropped, or both: a defect.
    """
    first, last = stages["clean"], stages["keep"]
    dropped = first.dropped | last.dropped
    counted = last.kept.documents + sum(amount.documents for amount in dropped.values())
    if counted != first.came.documents:
        raise UserError(
            f"{first.came.documents:,} documents came and {counted:,} were kept or dropped; that "
            "is a defect of lmjax: please report it with the ledger's work folder"
        )
    excerpts = first.excerpts | last.excerpts
    by_funnel = list(dict.fromkeys(STEP_OF.values()))
    rules = sorted(dropped, key=lambda rule: (by_funnel.index(step_of(rule)), rule))
    times = {}
    for found in stages.values():
        for judge, time in found.times.items():
            times[judge] = {
                "seconds": round(time.seconds, 6),
                "documents": time.documents,
                "bytes": time.bytes,
            }
    return {
        "format": FORMAT,
        **head,
        "recipe": recipe.as_dict(),
        "tokens_are": recipe.tokenizer or "words and marks",
        "versions": {name: metadata.version(name) for name in ("lmjax", "datatrove")},
        "summary": _summary(first.came, last.kept, {rule: dropped[rule] for rule in rules}),
        "in": _amount(first.came),
        "kept": _amount(last.kept),
        "dropped": {
            rule: {
                "step": step_of(rule),
                **_amount(dropped[rule]),
                "excerpts": [{"id": id, "text": text} for _, id, text in excerpts[rule]],
            }
            for rule in rules
        },
        "balance": {
            kind: {
                name: {
                    "before": _amount(first.before[kind][name]),
                    "after": _amount(last.after.get(kind, {}).get(name, Amount())),
                }
                for name in sorted(first.before[kind])
            }
            for kind in first.before
        },
        "rules_left_out": {name: first.left_out[name] for name in sorted(first.left_out)},
        "masked": first.counts.get("masked", 0),
        "times": times,
        "files": {name: sum for name, sum in sorted(files.items()) if not name.startswith("work")},
    }


def _summary(came: Amount, kept: Amount, dropped: Mapping[str, Amount]) -> dict[str, int]:
    """What a model card says."""
    return {
        "documents in": came.documents,
        "bytes in": came.bytes,
        **{f"dropped by {rule}": amount.documents for rule, amount in dropped.items()},
        "documents kept": kept.documents,
        "bytes kept": kept.bytes,
    }


def _amount(amount: Amount) -> dict[str, int]:
    return {"documents": amount.documents, "bytes": amount.bytes, "tokens": amount.tokens}


def read(folder: str) -> dict[str, Any] | None:
    """The ledger of a folder; None: there is none.

    Raises:
      UserError: what is there is none, or of another format.
    """
    path = os.path.join(folder, FILE)
    try:
        with open(path, "rb") as stream:
            found = json.load(stream)
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']}")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no ledger ({error}); choose another --output") from None


def funnel(found: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """(step, documents that it dropped, documents left), steps that ran, in order."""
    left, steps = found["in"]["documents"], []
    for step in dict.fromkeys(STEP_OF.values()):
        gone = sum(of["documents"] for of in found["dropped"].values() if of["step"] == step)
        left -= gone
        steps.append((step, gone, left))
    return [entry for entry in steps if entry[1] or entry[0] == "read"]


def clear(folder: str) -> None:
    """Takes away what was needed on the way."""
    shutil.rmtree(os.path.join(folder, "work"), ignore_errors=True)


def inputs(names: Sequence[str], sizes: Sequence[int]) -> list[dict[str, Any]]:
    return [{"name": n, "bytes": b} for n, b in zip(names, sizes, strict=True)]
