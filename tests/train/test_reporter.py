import logging

import jax.numpy as jnp
import pytest

from lmjax.errors import UserError
from lmjax.train import loss, metrics
from lmjax.train.console import Console
from lmjax.train.reporter import Reporter


@pytest.fixture
def reporter(tmp_path):
    writer = metrics.MetricsWriter(tmp_path / "m.jsonl", tmp_path / "tensorboard", purge_step=1)
    console = Console()
    yield Reporter(
        writer,
        console,
        num_steps=1000,
        start=0,
        start_tokens=jnp.zeros(2, jnp.uint32),
        exact_likelihood=False,
        flops_per_token=1e6,
        peak_flops=1e12,
    )
    writer.close()
    console.close()


def step_metrics(nats, unigram=6.0, step=1, skipped=0):
    window = loss.zeros() | {
        name: jnp.float32(value)
        for name, value in {
            "nats": nats,
            "weight": 1.0,
            "content_nats": nats,
            "content_weight": 1.0,
            "unigram_nats": unigram,
            "content_unigram_nats": unigram,
        }.items()
    }
    return {
        "loss": jnp.float32(nats),
        "window": window,
        "peaks": {"value": jnp.array([nats, 1.0]), "step": jnp.array([step, step])},
        "grad_norm": jnp.float32(1),
        "learning_rate": jnp.float32(1e-3),
        "tokens": jnp.array([0, 100 * step], jnp.uint32),
        "guard": {"skipped": jnp.int32(skipped), "in_a_row": jnp.int32(skipped)},
    }


def report(reporter, losses, first=1, skipped=0):
    for step, nats in enumerate(losses, first):
        reporter.tick(step, None, step_metrics(nats, step=step, skipped=skipped))
        reporter.record(step, None, step_metrics(nats, step=step, skipped=skipped))
    reporter.sync()


def warnings_of(reporter, losses):
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record)
    logging.getLogger("lmjax").addHandler(handler)
    report(reporter, losses)
    logging.getLogger("lmjax").removeHandler(handler)
    return [r.getMessage() for r in heard if r.levelno == logging.WARNING]


def test_a_run_on_the_unigram_plateau_is_told(reporter):
    (message,) = warnings_of(reporter, [8.0, 7.0, *[6.02] * 12])
    assert "unigram baseline" in message


def test_a_run_that_learns_is_left_alone(reporter):
    assert warnings_of(reporter, [8.0 - 0.2 * i for i in range(30)]) == []


def test_rows_carry_rates_and_one_row_per_step(reporter, tmp_path):
    report(reporter, [5.0, 4.0, 3.0])
    rows = list(metrics.read(tmp_path / "m.jsonl"))
    assert [(r["step"], r["loss"], r["tokens"]) for r in rows] == [
        (1, 5.0, 100),
        (2, 4.0, 200),
        (3, 3.0, 300),
    ]
    assert rows[2]["mfu"] == pytest.approx(rows[2]["tokens_per_second"] * 1e-6)


def test_updates_that_were_not_made_are_told_and_ten_in_a_row_end_the_run(reporter):
    for step in range(1, 10):
        reporter.tick(step, None, step_metrics(float("nan"), step=step, skipped=step))
    with pytest.raises(UserError, match=r"step 10: loss nan, .*10th update in a row"):
        report(reporter, [float("nan")], first=10, skipped=10)


def test_a_window_without_updates_has_no_row(reporter, tmp_path):
    skipped = step_metrics(float("nan"), skipped=1) | {"window": loss.zeros()}
    reporter.record(1, None, skipped)
    reporter.sync()
    report(reporter, [5.0], first=2, skipped=1)
    (row,) = metrics.read(tmp_path / "m.jsonl")
    assert (row["step"], row["skipped_updates"]) == (2, 1)
