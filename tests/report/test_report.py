"""Reports: what they say of made runs, and what they refuse."""

import made_run
import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.report import gather, log, report, unusual

EVIL = "<img src=x onerror=alert(1)>"
LEDGER = {
    "format": 1,
    "in": {"documents": 100, "bytes": 1000, "tokens": 300},
    "kept": {"documents": 60, "bytes": 500, "tokens": 150},
    "dropped": {
        "language_other": {
            "step": "language",
            "documents": 30,
            "bytes": 300,
            "tokens": 9,
            "excerpts": [{"id": "a", "text": f"Ein Satz {EVIL}"}],
        },
        "near_duplicate": {"step": "near duplicates", "documents": 10, "bytes": 200, "tokens": 9},
    },
    "summary": {"documents in": 100, "documents kept": 60},
}


def rows(spike_at=None, num=100, every=4):
    """Rows of a run that learns; the worst step of one row is a spike."""
    rng = np.random.default_rng(0)
    for step in range(every, num * every + 1, every):
        loss = 6.0 * step**-0.1 + rng.normal(0, 0.02)
        worst = loss + 0.1 + abs(rng.normal(0, 0.03))
        at = step - int(rng.integers(every))
        if spike_at is not None and step - every < spike_at <= step:
            worst, at = loss + 1.0, spike_at
        yield made_run.train_row(step, loss, max_loss=worst, max_loss_step=at)
        if step % 100 == 0:
            yield made_run.train_row(step, loss + 0.1) | {"split": "eval"}


def test_a_page_says_what_the_files_say(tmp_path):
    samples = [
        {"step": step, "index": 0, "prompt": "Once", "text": f"text {step} {EVIL}", "reference": ""}
        for step in range(50, 401, 50)
    ]
    path = made_run.make(tmp_path, rows(spike_at=202), samples=samples, ledger=LEDGER)
    page = report.make([path]).decode()
    assert EVIL not in page
    for words in (
        "gpt2 tiny, decoder",
        "400 of 400 (finished)",
        f"--mode=replay --workdir={path} --step=202",
        "1 restarts, 20 steps made again",
        "loss nan, gradient norm nan: this update was not made",
        "after near duplicates",
        "text 400 &lt;img",
        "documents left (50.0% of the bytes)",
    ):
        assert words in page, words


def test_of_several_runs_the_differences_are_shown(tmp_path):
    first = made_run.make(tmp_path / "a", rows())
    other = made_run.make(tmp_path / "b", rows(), **{"optimizer.learning_rate": 0.5})
    page = report.make([first, other]).decode()
    differs = page[page.index('<th scope="col">differs') : page.index("All fields")]
    assert "optimizer.learning_rate" in differs
    assert "train.num_steps" not in differs
    assert "a/run" in differs  # both are called "run"


def test_the_log_says_where_time_went():
    found = log.timeline(made_run.LOG)
    assert [(start.step, start.reached) for start in found.starts] == [(0, 120), (100, 400)]
    assert found.repeated == 20
    assert (found.seconds, found.away) == (500.0, 239.0)
    assert [entry.level for entry in found.troubles] == ["WARNING"]
    assert log.timeline("") == log.Timeline()


def test_goodput_is_the_share_of_steps_that_count(tmp_path):
    run = gather.gather([made_run.make(tmp_path, rows())])[0]
    assert run.facts.seconds == pytest.approx(400 * 256 / 1000)
    assert run.goodput == pytest.approx(102.4 / 500)


@pytest.mark.parametrize("spike", [101, 202, 398])
def test_a_bad_step_stands_out_of_its_row(tmp_path, spike):
    run = gather.gather([made_run.make(tmp_path, rows(spike_at=spike))])[0]
    assert [each.step for each in unusual.find(run.train)] == [spike]


def test_noise_does_not_stand_out():
    """Normal noise on a falling curve, and a curve that jumps to a new level."""
    rng = np.random.default_rng(1)
    step = np.arange(1.0, 200_001)
    loss = 3 + 6 * step**-0.3 + rng.normal(0, 0.1, len(step))
    assert unusual.find({"step": step, "loss": loss}) == []
    level = np.where(step > 100, 5.0, 3.0)[:300] + rng.normal(0, 0.1, 300)
    assert unusual.find({"step": step[:300], "loss": level}) == []


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no run; train one"):
        report.make([str(tmp_path)])
    empty = made_run.make(tmp_path / "a", [])
    with pytest.raises(UserError, match=r"no rows in metrics.jsonl yet; wait"):
        report.make([empty])
    with pytest.raises(UserError, match="given twice; name each once"):
        report.make([empty, empty])
