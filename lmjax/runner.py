"""Wiring: what the command line asked for -> config, workdir, data, program, loop."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from lmjax import config_file, flops, foreign, objectives, paths
from lmjax.batch import Pieces
from lmjax.config import Config
from lmjax.data import cache, files, pipeline
from lmjax.errors import UserError
from lmjax.train import answers as answers_lib
from lmjax.train import data as data_lib
from lmjax.train import describe, loop, metrics, setup, workdir
from lmjax.train import inspect as inspect_lib
from lmjax.train import start as start_lib
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.console import Console, logger, make_console
from lmjax.train.copied_checkpoints import CopiedCheckpoints, open_checkpoints
from lmjax.train.evaluate import evaluate as run_evaluation
from lmjax.train.reporter import Reporter
from lmjax.train.state import TrainState
from lmjax.train.workdir import RunConfig, Workdir

PREEMPTED = 75  # exit code: stopped by a signal, saved, run the same command again


@dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    config_file: str | None
    workdir: str | None
    overrides: dict[str, Any] = field(default_factory=dict)
    debug: bool = False


def _run_config(request: Request) -> RunConfig:
    """The run of the workdir with what may change changed, or else that of the config file."""
    path = request.config_file
    source = None if path is None else config_file.source(path)
    stored = workdir.read(request.workdir) if request.workdir else None
    if stored is not None:
        return workdir.resume(stored, source, request.overrides)
    if source is not None:
        raw = config_file.load(source["file"])
        if "family" not in raw and "family" not in request.overrides:
            raw = start_lib.with_model(raw, request.overrides)
    elif init_from := request.overrides.get("train.init_from"):
        raw = start_lib.recipe_of(init_from)
    else:
        raise UserError(
            "nothing to run: give --config=FILE for a new run (see configs/), "
            "or the --workdir of one that was started"
        )
    return RunConfig(start_lib.inherit(config_file.make(raw, request.overrides)), source)


def dry_run(request: Request) -> int:
    """Says what the run is and what it costs; touches no data and no workdir."""
    config = setup.resolve(_run_config(request).config)
    describe.dry_run(setup.make_program(config), make_console())
    return 0


def help_config() -> int:
    """Prints every field with its default and meaning."""
    make_console().print(describe.field_table())
    return 0


@contextlib.contextmanager
def _opened(request: Request) -> Iterator[tuple[Console, Workdir, RunConfig]]:
    """The workdir, locked and logged to, and what it runs; errors go into its log too."""
    if request.workdir is None:
        raise UserError(
            "--workdir is missing; give --workdir=DIR, a folder for checkpoints, metrics and log"
        )
    run = _run_config(request)  # a mistake in the config leaves no folder behind
    jax.config.update("jax_debug_nans", request.debug)
    console, folder = Console(), Workdir(request.workdir)
    try:
        console.log_to(folder.log)
        yield console, folder, run
    except UserError as error:
        console.log_only(str(error))
        raise
    except Exception as error:
        console.log_only("".join(traceback.format_exception(error)))
        foreign.logged_in(error, paths.join(folder.name, folder.log.name))
        raise
    finally:
        console.close()
        folder.close()


@dataclass(frozen=True)
class _Run:
    """Everything a run holds while it goes on."""

    folder: Workdir
    program: setup.Program
    pieces: Pieces | None
    data: data_lib.Data
    steps: setup.Steps
    answering: answers_lib.Answering | None
    checkpoints: Checkpoints | CopiedCheckpoints

    @property
    def config(self) -> Config:
        return self.program.config


@contextlib.contextmanager
def _prepared(folder: Workdir, run: RunConfig) -> Iterator[_Run]:
    """Data, program and compiled steps of a run, with the config resolved and written down."""
    _check_hosts(run.config)
    imported = start_lib.ids_tokenizer(run.config.train.init_from or folder.path)
    start_lib.check_data(run.config, imported)
    stores = data_lib.open_stores(start_lib.with_own_tokenizer(run.config, folder.path))
    start_lib.check_tokenizer(run.config, imported, stores.tokenizer)
    config = _resolved(run.config, stores)
    ids = setup.make_ids(config, stores.tokenizer)
    program = setup.make_program(config, ids=ids)
    data = data_lib.open_data(config, stores, program.objective, program.eval_objective)
    keep = config.checkpoint
    checkpoints = open_checkpoints(folder.checkpoints, keep=keep.keep, keep_period=keep.keep_period)
    try:
        _check_data(checkpoints, data, folder.name)
        folder.write(RunConfig(config, run.source, run.changes))
        folder.keep_tokenizer(stores.train[0].tokenizer_path, replace=imported is not None)
        folder.sync()
        with program.context():
            steps = setup.make_steps(program, data.tables)
            answering = answers_lib.make(program, stores.tokenizer)
            yield _Run(folder, program, ids.pieces, data, steps, answering, checkpoints)
    finally:
        checkpoints.close()


def _resolved(config: Config, stores: data_lib.Stores) -> Config:
    """The config with what only its data says: how many ids there are, and which classes."""
    size = stores.tokenizer.config["requested_vocab_size"]
    return setup.resolve(config, size, stores.labels(config))


def _check_hosts(config: Config) -> None:
    """Refuses raw text on several hosts: each would tokenise it, and train a tokenizer, itself."""
    if jax.process_count() == 1:
        return
    for path in config.data.paths:
        if not cache.is_prepared(path):
            raise UserError(
                f"{path} is raw text, and this run has {jax.process_count()} hosts; prepare it "
                "once with tools/prepare_data.py and give all of them that store"
            )


def _check_data(
    checkpoints: Checkpoints | CopiedCheckpoints, data: data_lib.Data, workdir_name: str
) -> None:
    """Refuses data that the newest checkpoint, if there is one, was not trained on."""
    step = checkpoints.latest()
    meta = {} if step is None else checkpoints.meta(step)
    for name, value in data.identity().items():
        if meta.get(name, value) != value:  # an import has seen no data
            raise UserError(
                f"{name} of the data is {value[:12]}, the run in {workdir_name} was trained on "
                f"{meta[name][:12]}: data or tokenizer have changed; put back what they were, or "
                "give another --workdir"
            )


def _restore(run: _Run) -> tuple[TrainState, int] | None:
    """The newest checkpoint, if there is one."""
    step = run.checkpoints.latest()
    if step is None:
        return None
    return start_lib.restore(run.checkpoints, step, run.program), step


def _first_state(run: _Run, console: Console) -> TrainState:
    train = run.config.train
    if train.init_from is None or not train.init_weights:
        return run.program.init()
    state, said = start_lib.from_run(run.program)
    console.line(said)
    return state


def _evaluate(run: _Run, state: TrainState, progress: Callable[[str, int, int], None]) -> dict:
    """A row of metrics; `progress` is told (what, done, in all)."""
    batches = run.data.eval_batches(run.program)
    row = run_evaluation(
        state.params,
        batches,
        run.steps.eval_step,
        run.program.place,
        functools.partial(progress, "evaluation"),
        run.data.names,
    )
    if run.answering is not None:
        answers = run.answering(state.params, batches, functools.partial(progress, "answers"))
        row |= run.answering.measures(answers)
        files.write_whole(run.folder.path / answers_lib.FILE, answers_lib.to_lines(answers))
    return row


def evaluate(request: Request) -> int:
    """Evaluates the newest checkpoint on the held-out text; the row is the last line, as JSON."""
    if request.workdir is not None and workdir.read(request.workdir) is None:
        raise UserError(f"workdir {request.workdir} holds no run; train one there first")
    with _opened(request) as (_, folder, run_config), _prepared(folder, run_config) as run:
        restored = _restore(run)
        if restored is None:
            raise UserError(f"{run.checkpoints.name} holds no checkpoint; train first")
        state, step = restored
        row = _evaluate(run, state, lambda what, done, total: None)
        print(json.dumps({"step": step, "split": "eval", **row}))
    return 0


def train(request: Request) -> int:
    """Starts, or goes on with, the run in the workdir."""
    with (
        _opened(request) as (console, folder, run_config),
        _prepared(folder, run_config) as run,
        _stop_on_signals() as interrupted,
    ):
        train_config = run.config.train
        for line in describe.headline(run.program, describe.estimate(run.program)):
            console.line(line)
        if warning := describe.memory_warning(run.program):
            logger.warning(warning)
        for line in describe.data_lines(run.program, run.data):
            console.line(line)
        if run.pieces is not None and (line := describe.words_line(run.pieces)):
            console.line(line)
        restored = _restore(run)
        state, start = restored or (_first_state(run, console), 0)
        dropped = metrics.cut(folder.metrics, start)
        if restored:
            cut = f"; {dropped} later lines of metrics.jsonl dropped" if dropped else ""
            console.line(f"going on from step {start} in {folder.name}{cut}")
        writer = metrics.MetricsWriter(folder.metrics, folder.tensorboard, purge_step=start + 1)
        reporter = Reporter(
            writer,
            console,
            num_steps=train_config.num_steps,
            start=start,
            start_tokens=state.tokens,
            exact_likelihood=run.program.objective.exact_likelihood,
            flops_per_token=flops.flops_per_token(run.config.model, run.program.row).full,
            peak_flops=_peak_flops(run.program),
            names=run.data.names,
            epochs=lambda step: run.data.epochs(step * train_config.global_batch_size),
        )
        try:
            console.start(start, train_config.num_steps)
            state, step = _loop(run, state, start, reporter, console, interrupted)
            reporter.sync()
            if step < train_config.num_steps and step > (run.checkpoints.latest() or 0):
                _save(run, reporter, step, state)
            run.checkpoints.wait()
        finally:
            console.stop()
            writer.close()
        if step < train_config.num_steps:
            console.line(f"stopped and saved at step {step}; the same command goes on from there")
            return PREEMPTED
        for line in describe.summary(run.program, folder, metrics.read(folder.metrics)):
            console.line(line)
    return 0


def _loop(
    run: _Run,
    state: TrainState,
    start: int,
    reporter: Reporter,
    console: Console,
    interrupted: Callable[[], bool],
) -> tuple[TrainState, int]:
    config, num_micro = run.config, run.program.num_micro
    stop = config.train.num_steps

    def step_fn(step: int, state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        def on_micro(done: int, sums: dict) -> None:
            if interrupted():  # a long step is not worth its grace time; it runs again whole
                raise loop.InterruptedStepError
            reporter.micro(step, done, num_micro, sums)

        fresh = loop.due(step - 1, config.log.every, 0)  # the window of a row starts behind one
        return run.steps(state, batch, fresh, on_micro)

    def evaluation(step: int, state: TrainState, _: dict) -> None:
        reporter.flush()
        with reporter.paused():
            row = _evaluate(
                run,
                state,
                lambda what, done, total: console.within_step(
                    f"step {step}: {what} {done}/{total}"
                ),
            )
            reporter.eval_row(step, row)

    def save(step: int, state: TrainState, _: dict) -> None:
        _save(run, reporter, step, state)

    callbacks = [
        loop.Every(1, reporter.tick),
        loop.Every(config.log.every, reporter.record),
        loop.Every(config.eval.every, evaluation),
        loop.Every(config.checkpoint.every, save),
    ]
    batches = pipeline.iterate(
        run.data.train_batches(run.program), start, stop, config.data.num_workers
    )
    return loop.run(
        state, batches, step_fn, callbacks, start=start, stop=stop, interrupted=interrupted
    )


def _save(run: _Run, reporter: Reporter, step: int, state: TrainState) -> None:
    reporter.sync()  # rows first: a checkpoint never knows more than metrics.jsonl
    with reporter.paused():
        run.folder.sync()
        meta = {"seed": run.config.train.seed, "hardware": run.program.hardware()}
        run.checkpoints.save(step, state, meta | run.data.amounts() | run.data.identity())


def _peak_flops(program: setup.Program) -> float | None:
    peak = flops.peak_flops(program.device.device_kind)
    return None if peak is None else peak * program.mesh.devices.size


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """SIGTERM (a preemption) or Ctrl-C ends the run at its next pause; a second one at once."""
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        logger.warning(f"{signal.Signals(number).name}: stopping and saving")

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train_batches(request: Request) -> tuple[Config, pipeline.TrainBatches, data_lib.Stores]:
    """The batches a run would see, all rows of each, without a model or a device."""
    config = _run_config(request).config
    stores = data_lib.open_stores(start_lib.with_own_tokenizer(config, request.workdir))
    config = _resolved(config, stores)
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
