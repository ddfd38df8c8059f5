"""The page of plans: every config on the devices that its first lines name, as one table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.plan import plan, topology
from lmjax.plan.plan import Asked
from lmjax.train.console import duration, size

_NAMED = re.compile(r"^Fits (\S+):", re.MULTILINE)
_ROW = re.compile(r"^\| \[`(\w+\.py)`\].*`([0-9a-f]{12})` \|$", re.MULTILINE)

_COLUMNS = ("config", "devices", "memory of each", "sent into each, a step")
_COLUMNS += ("a step at the least", "the run", "hash")

_HEAD = """\
# Plans

What every config takes on devices on which it fits: the training step of the recipe as it stands,
compiled for them without them. Made by `python tools/plan.py --all`, which keeps the rows whose
config has not changed; the last column is the beginning of its file's SHA-256. Of one config, with
other devices or fields, the same tool [says more](pod.md#the-plan-before-the-bill).

Memory is the compiler's figure for one chip at the peak of a step. *At the least* is a roofline: no
step is faster than its arithmetic at the chip's peak, its traffic with memory, or its bytes over
the network; the word says which of them it is. *The run* is the whole recipe at {mfu:.0%} of the
chips' peak. Nothing here has been run on a TPU.

"""


def configs(folder: Path) -> dict[Path, str]:
    """The configs that can be planned, and the devices that each says it fits on.

    Those of fine-tuning take their model from a run, and name none.

    Raises:
      UserError: another names none.
    """
    found = {}
    for file in sorted(folder.glob("*.py")):
        named = _NAMED.search(file.read_text())
        if named:
            found[file] = named[1]
        elif not file.stem.startswith("finetune_"):
            raise UserError(
                f"{file} names no devices that it fits on; add a line 'Fits v5e:2x2: ...' to its "
                "docstring"
            )
    return found


def sha256(file: Path) -> str:
    """The beginning of a config's hash, as the page has it."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def rows(page: str) -> dict[str, tuple[str, str]]:
    """(hash, whole row) of each config that a page has."""
    return {match[1]: (match[2], match[0]) for match in _ROW.finditer(page)}


def write(
    folder: Path,
    page: Path,
    load: Callable[[str], Config],
    asked: Asked,
    *,
    analytic: bool,
    tell: Callable[[str], None],
) -> None:
    """Writes the page anew after every row, so that an interrupted one goes on.

    Args:
      folder: of the configs.
      page: to write.
      load: a file's config, as `plan.make` takes it.
      asked: as of `plan.make`.
      analytic: compile nothing.
      tell: is told what goes on.

    Raises:
      UserError: a config names no devices, or does not fit on those; the others have their rows.
    """
    there = rows(page.read_text()) if page.exists() else {}
    done: list[str] = []
    problems: list[str] = []
    for file, name in configs(folder).items():
        known, row = there.get(file.name, ("", ""))
        if known != sha256(file):
            tell(f"{file.name} on {name}")
            try:
                row = _row(file, name, load(str(file)), asked, analytic, tell)
            except UserError as error:
                problems.append(f"{file.name}: {error}")
                continue
        done.append(row)
        rest = (row for known, (_, row) in there.items() if known > file.name)
        page.write_text(_page(asked, [*done, *rest]))
    page.write_text(_page(asked, done))
    if problems:
        raise UserError(f"no plan of {'; '.join(problems)}")


def _page(asked: Asked, rows: Sequence[str]) -> str:
    columns = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    return _HEAD.format(mfu=asked.mfu) + "\n".join([*columns, *rows]) + "\n"


def _row(
    file: Path,
    name: str,
    config: Config,
    asked: Asked,
    analytic: bool,
    tell: Callable[[str], None],
) -> str:
    made = plan.make(config, topology.make(name, analytic=analytic), asked, tell)
    found = plan.as_dict(made)
    if not found["fits"]:
        tried = ", ".join(found["tried"])
        raise UserError(f"does not fit on {name} ({tried}); name other devices in its docstring")
    memory, time = found["memory"], found["time"]
    cells = [
        f"[`{file.name}`](../configs/{file.name})",
        _devices(found),
        f"{size(memory['total'])} of {size(memory['capacity'])}",
        ", ".join(_sent(made)) or "nothing",
        f"{found['roofline']['seconds']:.3g} s, {found['roofline']['bound']}",
        f"{duration(86_400 * time['days'])}, {time['chip_hours']:,.3g} chip-hours",
        f"`{sha256(file)}`",
    ]
    return f"| {' | '.join(cells)} |"


def _devices(found: dict[str, Any]) -> str:
    mesh = " x ".join(f"{axis} {n}" for axis, n in found["topology"]["mesh"].items())
    step = found["step"]
    some = f", {step['micro_batch_size']} rows at a time"
    remat = f", remat {step['remat']}" * (step["remat"] != "none")
    return f"{found['topology']['name']} ({mesh}){some}{remat}"


def _sent(made: plan.Plan) -> Iterator[str]:
    """What is sent by each kind of collective, but for trifles."""
    sums: dict[str, int] = {}
    for each in made.collectives():
        sums[each.kind] = sums.get(each.kind, 0) + each.received
    for kind, received in sums.items():
        if received > 0.02 * sum(sums.values()):
            yield f"{kind} {size(received)}"
