"""The modes of the command line: train, evaluate, say what a run is, show its batches."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np

from lmjax import chips, faults, flops, objectives, opening, paths
from lmjax.config import Config
from lmjax.data import pipeline
from lmjax.errors import UserError
from lmjax.exit_codes import PREEMPTED
from lmjax.opening import Request, Run
from lmjax.parallel import hosts
from lmjax.replay import mode as replay_mode
from lmjax.train import data as data_lib
from lmjax.train import describe, loop, metrics, setup, starts, wandb_sink, workdir
from lmjax.train import inspect as inspect_lib
from lmjax.train import start as start_lib
from lmjax.train.console import Console, logger, make_console
from lmjax.train.life import Life
from lmjax.train.loop import StoppedError
from lmjax.train.reporter import Reporter
from lmjax.train.sinks import Sink, TensorBoard
from lmjax.train.state import TrainState
from lmjax.train.stop import Stop
from lmjax.train.watchdog import Watchdog
from lmjax.training import Training, evaluation_row, first_state

__all__ = [
    "PREEMPTED",
    "Request",
    "dry_run",
    "evaluate",
    "help_config",
    "inspect",
    "replay",
    "train",
]


def dry_run(request: Request) -> int:
    """Says what the run is and what it costs; touches no data and no workdir."""
    config = setup.resolve(opening.run_config(request).config)
    describe.dry_run(setup.make_program(config), make_console())
    return 0


def help_config() -> int:
    """Prints every field with its default and meaning."""
    make_console().print(describe.field_table())
    return 0


def evaluate(request: Request) -> int:
    """Evaluates the newest checkpoint on the held-out text; the row is the last line, as JSON."""
    if request.workdir is not None and workdir.read(request.workdir) is None:
        raise UserError(f"workdir {request.workdir} holds no run; train one there first")
    with (
        opening.opened(request) as (_, folder, config),
        opening.prepared(folder, config, room_for_saves=False) as run,
    ):
        restored = run.restart.state(run.program)
        if restored is None:
            raise UserError(f"{run.checkpoints.name} holds no checkpoint; train first")
        state, step = restored
        row = evaluation_row(run, state, lambda what, done, total: None)
        if hosts.index() == 0:
            print(json.dumps({"step": step, "split": "eval", **row}))
    return 0


def replay(request: Request, step: int | None, output: str | None) -> int:
    """Makes a step of the run in the workdir again and writes a page on it; changes nothing else.

    Args:
      request: of a run that is there.
      step: from 1.
      output: of the page; None: WORKDIR/replay/STEP.html.
    """
    if hosts.number() > 1:
        raise UserError(
            f"--mode=replay is for one process, and this run has {hosts.number()}; start one, with "
            "all devices that a mesh of the run takes"
        )
    console = Console()
    try:
        return replay_mode.show(request, step, output, console)
    finally:
        console.close()


def train(request: Request) -> int:
    """Starts, or goes on with, the run in the workdir."""
    with Stop(alone=hosts.number() == 1) as stop, contextlib.ExitStack() as stack:
        try:
            with stop.nothing_to_lose():
                faults.at("prepare")
                console, folder, config = stack.enter_context(opening.opened(request))
                stop.before_leaving = folder.unlock
                wandb_sink.require(config.config)
                run = stack.enter_context(opening.prepared(folder, config))
                _introduce(run, console)
                watchdog = _watchdog(run)
                stack.callback(watchdog.stop)
                watchdog.start("restore")
                state, start = first_state(run, console, watchdog)
        except StoppedError:
            logger.info("stopped before the first step; the same command begins again")
            return PREEMPTED
        return _train(run, state, start, console, stop, watchdog)


def _watchdog(run: Run) -> Watchdog:
    deadlines, folder = run.config.watchdog.model_dump(), run.folder
    life = Life(folder.signs_of_life, hosts.index(), hosts.number(), deadlines["host"])
    return Watchdog(deadlines, folder.log, logger.error, life.silent)


def _introduce(run: Run, console: Console) -> None:
    for line in describe.headline(run.program, describe.estimate(run.program)):
        console.line(line)
    if warning := describe.memory_warning(run.program):
        logger.warning(warning)
    for line in describe.data_lines(run.program, run.data):
        console.line(line)
    if run.pieces is not None and (line := describe.words_line(run.pieces)):
        console.line(line)


def _train(
    run: Run, state: TrainState, start: int, console: Console, stop: Stop, watchdog: Watchdog
) -> int:
    folder, num_steps = run.folder, run.config.train.num_steps
    dropped = metrics.cut(folder.metrics, start)
    if start:
        cut = f"; {dropped} later lines of metrics.jsonl dropped" if dropped else ""
        console.line(f"going on from step {start} in {folder.name}{cut}")
    if start < num_steps and (times := starts.note(folder.starts, start)) >= starts.MANY:
        logger.warning(
            f"this is start {times} in a row from step {start}: the process has always ended "
            f"before the next save, config.checkpoint.every={run.config.checkpoint.every} steps "
            f"on; lower that, or look in {folder.log} for what ends it"
        )
    lacks_evaluation = _lacks_evaluation(run, start)
    metrics.cut(folder.samples, start - lacks_evaluation)
    writer = metrics.MetricsWriter(folder.metrics, folder.samples, _sinks(run, start))
    reporter = _reporter(run, writer, console, state, start)
    training = Training(run, reporter, console, stop, watchdog, start)
    try:
        console.start(start, num_steps)
        if lacks_evaluation:
            training.evaluate(start, state, {})
        step, saved = training(state)
    except Exception as error:
        if hosts.number() > 1 and not isinstance(error, UserError):
            watchdog.blame()
        raise
    finally:
        console.stop()
        training.close()
        writer.close()
    if step < num_steps or training.unevaluated:
        where = (
            f"stopped and saved at step {step}"
            if saved == step
            else (f"stopped at step {step}, saved at step {saved}")
        )
        console.line(f"{where}; the same command goes on from there")
        return PREEMPTED
    for line in describe.summary(run.program, folder, metrics.read(folder.metrics)):
        console.line(line)
    return 0


def _lacks_evaluation(run: Run, start: int) -> bool:
    """Whether the run was stopped within the evaluation of the step that it goes on from."""
    if not start or not loop.due(start, run.config.eval.every, run.config.train.num_steps):
        return False
    rows = metrics.read(run.folder.metrics)
    lacks = not any((row["step"], row["split"]) == (start, "eval") for row in rows)
    return bool(hosts.agreed(lacks))


def _sinks(run: Run, start: int) -> list[Sink]:
    folder = run.folder
    sinks: list[Sink] = [TensorBoard(folder.tensorboard, purge_step=start + 1)]
    if run.config.log.wandb is not None and hosts.index() == 0:
        name = folder.name.rstrip("/").rpartition("/")[-1]
        sinks.append(wandb_sink.WandB(run.config, folder.path, name))
    return sinks


def _reporter(
    run: Run, writer: metrics.MetricsWriter, console: Console, state: TrainState, start: int
) -> Reporter:
    train = run.config.train
    return Reporter(
        writer,
        console,
        num_steps=train.num_steps,
        start=start,
        start_tokens=state.tokens,
        start_skipped=int(state.guard["skipped"]),
        exact_likelihood=run.program.objective.exact_likelihood,
        flops_per_token=flops.flops_per_token(run.config.model, run.program.row).full,
        peak_flops=_peak_flops(run.program),
        names=run.data.names,
        epochs=lambda step: run.data.epochs(step * train.global_batch_size),
    )


def _peak_flops(program: setup.Program) -> float | None:
    peak = chips.peak_flops(program.device.device_kind)
    return None if peak is None else peak * program.mesh.devices.size


def train_batches(request: Request) -> tuple[Config, pipeline.TrainBatches, data_lib.Stores]:
    """The batches a run would see, all rows of each, without a model or a device."""
    config = opening.run_config(request).config
    stores = data_lib.open_stores(start_lib.with_own_tokenizer(config, request.workdir))
    config = opening.resolved(config, stores)
    objective = objectives.make(config, setup.make_ids(config, stores.tokenizer))
    return config, data_lib.all_train_batches(config, stores, objective), stores


def inspect(request: Request, steps: range, max_rows: int, output: str | None) -> int:
    """Prints the batches of some steps, or writes them as arrays."""
    config, batches, stores = train_batches(request)
    if output is None:
        shown = inspect_lib.Inspector(
            batches,
            stores.tokenizer,
            setup.make_ids(config, stores.tokenizer),
            config.data.source_names,
        )
        shown.show(make_console(), steps, max_rows)
    else:
        content = io.BytesIO()
        np.savez_compressed(content, **inspect_lib.arrays(batches, steps))
        paths.write_bytes(output, content.getvalue())
        print(f"wrote the batches of steps {steps.start} to {steps.stop - 1} to {output}")
    return 0
