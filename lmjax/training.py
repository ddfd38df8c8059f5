"""A run while it trains: what happens in a step, around it, and when it is told to stop."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from lmjax import faults, opening
from lmjax.data import files, pipeline
from lmjax.opening import Run
from lmjax.parallel import hosts
from lmjax.train import answers as answers_lib
from lmjax.train import disk, loop, sampler
from lmjax.train.console import Console
from lmjax.train.evaluate import evaluate
from lmjax.train.ledger import Ledger
from lmjax.train.loop import StoppedError
from lmjax.train.reporter import Reporter
from lmjax.train.samples import Sample
from lmjax.train.saver import Saver
from lmjax.train.state import TrainState
from lmjax.train.stop import Stop
from lmjax.train.watchdog import Watchdog

Progress = Callable[[str, int, int], None]  # told (what, done, in all)


def evaluation_row(run: Run, state: TrainState, progress: Progress) -> dict[str, Any]:
    """A row of metrics."""
    return _evaluated(run, state, progress)[0]


def _evaluated(
    run: Run, state: TrainState, progress: Progress
) -> tuple[dict[str, Any], list[Sample]]:
    """A row of metrics, and some of the answers that were judged for it."""
    batches = run.data.eval_batches(run.program)
    row = evaluate(
        state.params,
        batches,
        run.steps.eval_step,
        run.program.place,
        functools.partial(progress, "evaluation"),
        run.data.names,
    )
    if run.answering is None:
        return row, []
    answers = run.answering(state.params, batches, functools.partial(progress, "answers"))
    row |= run.answering.measures(answers)
    files.write_whole(run.folder.path / answers_lib.FILE, answers_lib.to_lines(answers))
    return row, run.answering.samples(batches, answers, run.config.eval.num_samples)


class Training:
    """Steps start + 1 ... of a run, with all that goes on around them."""

    def __init__(
        self,
        run: Run,
        reporter: Reporter,
        console: Console,
        stop: Stop,
        watchdog: Watchdog,
        start: int,
    ):
        self._run, self._reporter, self._console = run, reporter, console
        self._stop, self._watchdog, self._start = stop, watchdog, start
        self._ledger = Ledger(run.folder.ledger, start) if run.config.log.ledger else None
        self._saver = Saver(
            run.checkpoints,
            self._save,
            every=run.config.checkpoint.every,
            last=run.config.train.num_steps,
            start=start,
        )
        self._sampler = sampler.make(run.program, run.data)
        self.unevaluated = False  # whether an evaluation was given up

    def __call__(self, state: TrainState) -> tuple[int, int]:
        """Trains to the end of the run or until it is stopped; returns (last step, step saved)."""
        log, last = self._run.config.log, self._run.config.train.num_steps
        vote = hosts.Vote()
        callbacks = [
            loop.Every(1, self._reporter.tick),
            loop.Every(log.every, self._reporter.record),
            loop.Every(self._run.config.eval.every, self.evaluate),
            loop.Every(1, self._saver),
            loop.Every(1, lambda step, state, metrics: faults.at("step", step)),
        ]
        state, step = loop.run(
            state,
            self._batches(last),
            self._step,
            callbacks,
            start=self._start,
            stop=last,
            interrupted=lambda: vote(bool(self._stop)),
        )
        self._reporter.sync()
        with self._watchdog.within("save"):
            saved = self._saver.finish(step, state)
        return step, saved

    def close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()

    def evaluate(self, step: int, state: TrainState, metrics: dict[str, Any]) -> None:
        """Writes a row; one that is given up for a signal is made up for when the run goes on."""

        def progress(what: str, done: int, total: int) -> None:
            self._watchdog.beat()
            faults.at("evaluation", step)
            if self._stop.gives_up:
                raise StoppedError
            self._console.within_step(f"step {step}: {what} {done}/{total}")

        self._reporter.flush()
        with self._reporter.paused(), self._watchdog.within("evaluation"):
            try:
                row, samples = _evaluated(self._run, state, progress)
                if self._sampler is not None:
                    told = functools.partial(progress, "samples")
                    samples = self._sampler(state.params, told)
            except StoppedError:
                self.unevaluated = True
            else:
                self._reporter.eval_row(step, row)
                self._reporter.samples(step, samples)

    def _batches(self, last: int) -> Iterator[dict]:
        """Host batches; waiting for one can be interrupted."""
        run = self._run
        batches = pipeline.iterate(
            run.data.train_batches(run.program), self._start, last, run.config.data.num_workers
        )
        for step in itertools.count(self._start + 1):
            with self._watchdog.within("data"), self._stop.at_once():
                faults.at("data", step)
                batch = next(batches, None)
            if batch is None:
                return
            if how := faults.at("batch", step):
                batch = faults.spoiled(batch, how)
            yield batch

    def _step(self, step: int, state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        num_micro = self._run.program.num_micro

        def on_micro(done: int, sums: dict) -> None:
            self._watchdog.beat()
            if self._stop.gives_up:  # a long step is not worth its grace time; it runs again whole
                raise StoppedError
            self._reporter.micro(step, done, num_micro, sums)

        # The window of a row starts behind one.
        fresh = loop.due(step - 1, self._run.config.log.every, 0)
        with self._compiling() if step == self._start + 1 else contextlib.nullcontext():
            state, metrics = self._run.steps(state, batch, fresh, on_micro)
        self._watchdog.enter("step")
        if self._ledger is not None:
            self._ledger.write(step, batch)
        return state, metrics

    @contextlib.contextmanager
    def _compiling(self) -> Iterator[None]:
        """Around the first step, before which there is nothing that is not saved."""
        with self._watchdog.within("compile"), self._stop.in_native_code():
            faults.at("compile", self._start + 1)
            yield

    def _save(self, step: int, state: TrainState) -> None:
        run, reporter = self._run, self._reporter
        reporter.sync()  # rows first: a checkpoint never knows more than metrics.jsonl
        with reporter.paused(), self._watchdog.within("save"):
            run.folder.sync()
            disk.require(run.folder.checkpoints, disk.num_bytes(state), f"the save of step {step}")
            meta = {"seed": run.config.train.seed, "hardware": run.program.hardware()}
            run.checkpoints.save(step, state, meta | run.data.amounts() | run.data.identity())


def first_state(run: Run, console: Console, watchdog: Watchdog) -> tuple[TrainState, int]:
    """The state that a run begins or goes on with, and its step."""
    watchdog.enter("restore")
    faults.at("restore")
    found = run.restart.state(run.program)
    if found is None:
        return opening.first_state(run, console.line), 0
    run.restart.put_aside()
    return found
