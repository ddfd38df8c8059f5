"""What `--mode=replay` does: a step again, a few lines on the console, a page."""

from __future__ import annotations

import importlib.util
import os

from lmjax import opening, paths
from lmjax.data import files
from lmjax.errors import UserError
from lmjax.opening import Request
from lmjax.replay import blame, page
from lmjax.replay import replay as replay_lib
from lmjax.replay.replay import Replayed, Step
from lmjax.train import workdir
from lmjax.train.console import Console, logger


def show(request: Request, step: int | None, output: str | None, console: Console) -> int:
    """Replays `step` and writes the page; see `runner.replay`.

    Raises:
      UserError: there is no such step or run, or the page cannot be drawn or written.
    """
    request.require_workdir()
    path, stored = workdir.existing(request.workdir)
    config = workdir.resume(stored, None, request.overrides).config
    replay_lib.check(
        path, paths.join(path, "checkpoints"), step, config.train.num_steps, config.log.every
    )
    if importlib.util.find_spec("plotly") is None:  # before the steps, which may take long
        raise UserError("the page's curves need plotly; pip install 'lmjax[report]'")
    run = opening.reading(request)
    try:
        found = replay_lib.replay(run, step, lambda start, made: _tell(console, start, step, made))
    finally:
        console.stop()
    batches = run.data.train_batches(run.program)
    blamed = blame.documents(batches, found.batch, found.explained.nats, run.ids)
    _summary(found, run.config.log.every, console)
    for line in page.worst_lines(run, blamed):
        console.line(line)
    where = output or paths.join(path, "replay", f"{step}.html")
    _write(where, page.render(run, found, blamed))
    console.line(f"wrote {where}")
    return 0


def _tell(console: Console, start: int, last: int, made: Step) -> None:
    if made.number == start + 1:
        began = f"the checkpoint of step {start}" if start else "the state that the run began with"
        none = "" if start else f"no checkpoint before step {last} is left: "
        steps = "1 step" if last - start == 1 else f"{last - start:,} steps"
        console.line(f"{none}replaying {steps} from {began}")
        console.start(start, last)
    console.step(made.number, f"loss {made.loss:.3f}")
    console.within_step(f"step {made.number}/{last}  loss {made.loss:.4f}")


def _summary(found: Replayed, every: int, console: Console) -> None:
    step = found.step
    recorded = {row["step"]: row for row in found.recorded}.get(step.number)
    what = "recorded" if every == 1 else "its row, the mean since the one before,"
    said = f" ({what} {recorded['loss']:.6g})" if recorded else ""
    left_out = "" if step.made else "; its update was not made"
    console.line(
        f"step {step.number}: loss {step.loss:.6g}{said}, gradient norm {step.grad_norm:.6g}"
        f"{left_out}"
    )
    if found.differences:
        logger.warning(page.verdict(found))
    else:
        console.line(page.verdict(found))


def _write(where: str, content: bytes) -> None:
    if paths.is_remote(where):
        paths.write_bytes(where, content)
        return
    where = os.path.expanduser(where)
    with files.writing(where):
        os.makedirs(os.path.dirname(os.path.abspath(where)), exist_ok=True)
        files.write_whole(where, content)
