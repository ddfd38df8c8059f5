"""Ladders of small models: what is trained, how it goes on, and the answer as a whole."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from small_run import CORPUS

from lmjax import config_file
from lmjax.errors import UserError
from lmjax.plan import climbing, decision, decision_page, ladder, plan, topology, variants
from lmjax.plan.ladder import Rung, Size, Text
from lmjax.plan.variants import VARIANTS, Shape
from lmjax.train import console

TEXT = Text("my_text", "/a/store", 7_000_000, 24_000_000, 90_000, 1000)
TINY = Size(512, 200_000, ((0.4, 1), (1,), (1,)), (Shape(32, 1), Shape(48, 1), Shape(96, 2)))


@pytest.mark.parametrize("name", VARIANTS)
def test_rungs_spread_and_the_larger_one_is_beyond_them(name, tmp_path):
    variant = VARIANTS[name]
    runs = ladder.rungs(variant, TEXT, tmp_path, Size())
    params = sorted({run.num_params for run in runs})
    assert len(params) == 4
    assert 8 <= params[-1] / params[0] <= 16
    assert 2 <= variant.num_params(variant.held_out) / params[-1] <= 4
    assert len({run.name for run in runs}) == len(runs) == 10
    work = [run.flops for run in runs]
    assert work == sorted(work, reverse=True)
    assert 3e13 < sum(work) < 1.2e14  # some 20 minutes of two cores
    for run in runs:
        assert run.num_steps * variant.rows * variants.SEQ_LEN == pytest.approx(
            run.tokens, rel=0.01
        )


@pytest.mark.parametrize("name", VARIANTS)
def test_the_config_of_a_run_is_a_config(name, tmp_path):
    for run in ladder.rungs(VARIANTS[name], TEXT, tmp_path, Size())[::4]:
        config = config_file.make(config_file.load(str(run.write_config())), {})
        assert config.train.num_steps == run.num_steps
        assert config.schedule.name == "wsd"
        assert config.model.hidden_size == run.shape.hidden_size
        sized = config.model.model_copy(update={"vocab_size": 4096})
        assert variants.block_params(sized) == run.num_params


def finished(run, loss, unigram=6.8):
    """Writes what a run that came to its end leaves behind."""
    run.workdir.mkdir(parents=True)
    row = {"step": run.num_steps, "content_loss": loss, "content_unigram_loss": unigram}
    rows = [row | {"split": "train", "tokens_per_second": 1e4}, row | {"split": "eval"}]
    (run.workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_is_done_is_not_done_again(tmp_path):
    runs = ladder.rungs(VARIANTS["decoder"], TEXT, tmp_path, Size())
    for run in runs:
        finished(run, 5 - 1e-6 * run.num_params)
    lines = []
    assert climbing.train(runs, lines.append) < 5
    assert lines == []
    points = ladder.points(runs)
    assert (np.diff(points.params) >= 0).all()
    np.testing.assert_allclose(points.loss, 5 - 1e-6 * points.params)
    assert [row["loss"] for row in ladder.table(runs)] == list(points.loss)


def test_a_rung_on_the_plateau_is_no_point(tmp_path):
    runs = ladder.rungs(VARIANTS["encoder"], TEXT, tmp_path, Size())
    for run in runs:
        finished(run, 6.7 if run is runs[-1] else 5.0)
    with pytest.raises(UserError, match=r"no fit: .* 2 layers of 32 on 2M tokens .* 6\.70, .*"):
        ladder.points(runs)


def test_a_run_that_fails_says_why(tmp_path):
    run = Rung(VARIANTS["decoder"], Shape(16, 1), 10_000, TEXT, TINY, tmp_path / "runs")
    with pytest.raises(UserError, match=r"decoder_16x1_10k .*no such file.*give the same command"):
        climbing.train([run], lambda line: None, 1)


def test_too_little_text(tmp_path):
    small = dataclasses.replace(TEXT, num_tokens=400_000, num_bytes=1_400_000)
    with pytest.raises(UserError, match=r"my_text has 1\.4 MB .* a ladder needs 2\.6 MB"):
        ladder.rungs(VARIANTS["decoder"], small, tmp_path, Size())


def question(folder, **fields):
    where = topology.make("cpu:2")
    about = (str(CORPUS), 0.01, where, plan.Asked(), None, ("decoder",), folder)
    return decision.Question(*about, size=TINY, workers=2, below=-0.5, **fields)


@pytest.mark.slow
def test_from_text_to_page(tmp_path, capsys):
    lines, page = [], tmp_path / "plan.html"
    asked = question(tmp_path / "work")
    decision_page.answer(asked, str(page), console.make_console(), lines.append)
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "plan.json").read_text())
    one = found["variants"]["decoder"]
    assert [run["tokens"] for run in one["runs"]] == [80_000, 200_000, 200_000, 200_000]
    losses = [run["loss"] for run in one["runs"]]
    assert losses[0] > losses[1] > losses[3]
    for run, name in zip(one["runs"][1:], ("32x1", "48x1", "96x2"), strict=True):
        rows = (tmp_path / "work/runs" / f"decoder_{name}_200k" / "metrics.jsonl").read_text()
        assert json.loads(rows.splitlines()[-1])["content_loss"] == run["loss"]
    assert sum(line.startswith("run ") for line in lines) == 4
    assert one["choice"]["run"]["flops"] <= 1.001 * found["budget"]["flops"]
    html = page.read_text()
    assert "Held-out loss against size" in html
    assert not re.search(r"(src|href)=.?https?:", html)
    for words in ("decided by", "parameters in the blocks (embeddings and head not counted)"):
        assert words in " ".join(shown.split()), shown
    again = []
    decision_page.answer(asked, None, console.make_console(), again.append)
    assert not any(line.startswith("run ") for line in again)
    file = one["config"]["file"]
    command = [sys.executable, "-m", "lmjax.main", f"--config={file}", "--dry_run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
