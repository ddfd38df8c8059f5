"""Turns device metrics into rows, lines and the progress bar, one step behind the device."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lmjax.errors import UserError
from lmjax.train import guard, loss, peaks
from lmjax.train.console import Console, count, duration, logger
from lmjax.train.metrics import MetricsWriter, of_sources
from lmjax.train.samples import Sample
from lmjax.train.state import TrainState, token_counts, total_tokens

_PLATEAU_ROWS = 10
_PLATEAU_NATS = 0.1
_SOURCES_SHOWN = 8


def measured(row: Mapping[str, float]) -> list[str]:
    """The measures of answers in a row of metrics, with their intervals."""
    names = [name for name in row if f"{name}_low" in row]
    return [
        f"{name} {_plain(row[name])} [{_plain(row[f'{name}_low'])}, {_plain(row[f'{name}_high'])}]"
        for name in names
    ]


def _plain(value: float) -> str:
    return f"{value:.4g}" if value > 1 else f"{value:.3f}"


def train_row(
    step: int,
    metrics: Mapping[str, Any],
    *,
    exact_likelihood: bool,
    names: Sequence[str] = (),
    epochs: Callable[[int], Sequence[float]] = lambda step: (),
) -> dict[str, Any] | None:
    """What metrics.jsonl keeps of a step, timings aside; None: no update since the last row.

    Args:
      step: which.
      metrics: of `TrainStep`, on the host.
      exact_likelihood, names, epochs: as of `Reporter`.
    """
    if not metrics["window"]["weight"]:
        return None  # and so nothing to tell of one
    row = loss.summarise(metrics["window"], exact_likelihood=exact_likelihood, names=names)
    if np.isfinite(metrics["grad_norm"]):
        row["grad_norm"] = float(metrics["grad_norm"])
    row |= peaks.fields(metrics["peaks"])
    row["skipped_updates"] = int(metrics["guard"]["skipped"])
    row["learning_rate"] = float(metrics["learning_rate"])
    row["tokens"] = total_tokens(metrics["tokens"])
    if names:
        row |= of_sources("tokens", names, token_counts(metrics["tokens"]))
        row |= of_sources("epochs", names, epochs(step))
    return row


class Reporter:
    """Callbacks for the loop: `tick` at every step, `record` at those that get a row."""

    def __init__(
        self,
        writer: MetricsWriter,
        console: Console,
        *,
        num_steps: int,
        start: int,
        start_tokens: jax.Array,
        start_skipped: int = 0,
        exact_likelihood: bool,
        flops_per_token: float,
        peak_flops: float | None,
        names: Sequence[str] = (),
        epochs: Callable[[int], Sequence[float]] = lambda step: (),
    ):
        """Reports to `writer` and `console`.

        Args:
          num_steps, start: last step of the run, and the one before its first here.
          start_tokens: `TrainState.tokens` there.
          start_skipped: updates that were not made until there.
          exact_likelihood: of the objective.
          flops_per_token, peak_flops: of all devices; None: not known.
          names: of the sources of a mixture.
          epochs: step -> passes over each of them.
        """
        self._writer, self._console = writer, console
        self._num_steps, self._start, self._exact = num_steps, start, exact_likelihood
        self._flops_per_token, self._peak = flops_per_token, peak_flops
        self._names, self._epochs = names, epochs
        self._pending: tuple[int, dict[str, Any], bool] | None = None
        self._clock = time.monotonic()
        self._clock_step, self._clock_tokens = start, total_tokens(start_tokens)
        self._skipped = start_skipped
        self._rate = ""
        self._recent: deque[tuple[float, float]] = deque(maxlen=_PLATEAU_ROWS)

    def tick(self, step: int, state: TrainState, metrics: dict[str, Any]) -> None:
        """Reads the step before this one, which was launched while the host was busy."""
        self.flush()
        self._pending = (step, metrics, False)

    def record(self, step: int, state: TrainState, metrics: dict[str, Any]) -> None:
        """Marks this step for a row; call after `tick`."""
        self._pending = (step, metrics, True)

    def flush(self) -> None:
        """Waits for the last step launched and reports it."""
        if self._pending is None:
            return
        step, metrics, wanted = self._pending
        self._pending = None
        value, skips = jax.device_get((metrics["loss"], metrics["guard"]))
        if step == self._start + 1:
            seconds = time.monotonic() - self._clock
            self._console.line(
                f"step {step}/{self._num_steps}  loss {value:.4f}  "
                f"(first step, compiled in {seconds:.0f} s)"
            )
        if wanted:
            self._row(step, jax.device_get(metrics))
        elif step == self._start + 1:  # compilation is no part of the rate
            self._clock, self._clock_step = time.monotonic(), step
            self._clock_tokens = total_tokens(metrics["tokens"])
        self._console.step(step, f"loss {value:.3f}{self._rate}")
        if skips["skipped"] > self._skipped:
            self._skipped = int(skips["skipped"])
            self._tell_skip(step, float(value), float(metrics["grad_norm"]), skips)

    def micro(self, step: int, done: int, total: int, sums: dict[str, jax.Array]) -> None:
        """News from within a step of several micro-batches (waits for the device)."""
        value = float(sums["nats"]) / max(float(sums["weight"]), 1.0)
        self._console.within_step(
            f"step {step}/{self._num_steps}: micro-batch {done}/{total}  loss {value:.4f}"
        )

    def eval_row(self, step: int, row: dict[str, Any]) -> None:
        """Writes and shows a held-out evaluation."""
        self._writer.write(step, "eval", row)
        bits = f"  {row['bits_per_byte']:.3f} bits/byte" if "bits_per_byte" in row else ""
        if judged := measured(row):
            said = f"(unigram {row['unigram_loss']:.4f})  {'  '.join(judged)}"
        else:
            said = (
                f" content {row['content_loss']:.4f} (unigram {row['content_unigram_loss']:.4f})  "
                f"accuracy {row['accuracy']:.1%}{bits}"
            )
        self._console.line(f"step {step}/{self._num_steps}  held-out loss {row['loss']:.4f} {said}")
        by_name = [(name, row.get(f"loss/{name}")) for name in self._names]
        shown = [f"{name} {value:.3f}" for name, value in by_name if value is not None]
        if shown:
            more = f" and {len(shown) - _SOURCES_SHOWN} more" * (len(shown) > _SOURCES_SHOWN)
            self._console.line(f"  of sources: {', '.join(shown[:_SOURCES_SHOWN])}{more}")

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Writes what the model made of some texts, and shows the first."""
        if samples:
            self._writer.write_samples(step, samples)
            self._console.line(f"  sample: {samples[0]}")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keeps what happens inside (evaluation, saves) out of tokens per second."""
        began = time.monotonic()
        yield
        self._clock += time.monotonic() - began

    def sync(self) -> None:
        """All rows so far are on disk afterwards."""
        self.flush()
        self._writer.sync()

    def _row(self, step: int, metrics: dict[str, Any]) -> None:
        row = train_row(
            step,
            metrics,
            exact_likelihood=self._exact,
            names=self._names,
            epochs=self._epochs,
        )
        if row is None:
            return
        now = time.monotonic()
        seconds = max(now - self._clock, 1e-9)
        steps = step - self._clock_step
        rate = (row["tokens"] - self._clock_tokens) / seconds
        row["tokens_per_second"] = rate
        if self._peak:
            row["mfu"] = rate * self._flops_per_token / self._peak
        eta = (self._num_steps - step) * seconds / max(steps, 1)
        self._clock, self._clock_step, self._clock_tokens = now, step, row["tokens"]
        self._writer.write(step, "train", row)
        mfu = f"  MFU {row['mfu']:.1%}" if "mfu" in row else ""
        self._rate = f"  {count(rate)} tok/s{mfu}"
        self._console.line(
            f"step {step}/{self._num_steps}  loss {row['loss']:.4f} "
            f"(unigram {row['unigram_loss']:.4f})  lr {row['learning_rate']:.2e}  "
            f"|g| {row.get('grad_norm', np.nan):.2f}{self._rate}"
            + (f"  {duration(eta)} to go" if step < self._num_steps else "")
        )
        self._watch_plateau(step, row)

    def _tell_skip(self, step: int, value: float, norm: float, skips: dict[str, Any]) -> None:
        """Says that an update was not made.

        Raises:
          UserError: it was the last of too many.
        """
        said = f"step {step}: loss {value:.4g}, gradient norm {norm:.4g}"
        if skips["in_a_row"] >= guard.LIMIT:
            raise UserError(
                f"{said}, the {guard.LIMIT}th update in a row that is not finite; nothing was "
                "saved since the first. Lower optimizer.learning_rate or lengthen "
                "schedule.warmup_steps, and run again in another --workdir (--debug names the "
                "operation that made the first NaN)"
            )
        logger.warning(f"{said}: this update was not made ({self._skipped:,} in all)")

    def _watch_plateau(self, step: int, row: dict[str, Any]) -> None:
        """Says so when a run has learned word frequencies and nothing else."""
        self._recent.append((row["content_loss"], row["content_unigram_loss"]))
        if len(self._recent) < _PLATEAU_ROWS:
            return
        if all(abs(nats - unigram) < _PLATEAU_NATS for nats, unigram in self._recent):
            logger.warning(
                f"step {step}: for {_PLATEAU_ROWS} rows the loss has sat on the unigram baseline "
                f"({row['content_unigram_loss']:.2f} nats): the model uses no context yet. Usual "
                "causes: too high a learning rate or too short a warm-up, repeated lines in the "
                "data, a broken mask"
            )
            self._recent.clear()
