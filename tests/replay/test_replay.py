"""Steps made again: as they were to the bit, and looked into."""

import dataclasses
import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_run
import tool_run

from lmjax import opening, runner
from lmjax.replay import blame, norms, page
from lmjax.replay import replay as replay_lib
from lmjax.train import metrics
from lmjax.train.copied_checkpoints import finished

STEPS = 24
EACH_ROW = {
    "log.every": 1,
    "checkpoint.every": 5,
    "checkpoint.keep": 20,
    "eval.every": 100,
    "train.num_steps": STEPS,
}
# Each with another way to go through the batch, the loss and the data.
OF_FAMILY = {
    "gpt2": {"train.global_batch_size": 16, "train.micro_batch_size": 8},
    "bert": {"train.loss_chunk": 2, "data.packing": "pack"},
    "t5": {"optimizer.name": "adafactor"},
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder of text: documents of a book, and beside them one of random characters."""
    folder = tmp_path_factory.mktemp("text")
    lines = small_run.CORPUS.read_text().splitlines(keepends=True)
    (folder / "book.jsonl").write_text("".join(lines[:12]))
    random = np.random.default_rng(0)
    noise = "".join(map(chr, random.integers(0x21, 0x3000, 1500)))
    junk = ['{"text": "A short story of a cat and a dog."}', f'{{"text": "{escaped(noise)}"}}']
    (folder / "junk.jsonl").write_text("\n".join(junk) + "\n")
    return folder


def escaped(text):
    return "".join(f"\\u{ord(sign):04x}" for sign in text)


@pytest.fixture(scope="module")
def run_of(text, tmp_path_factory):
    """Makes a finished run of a family, once."""
    root, made = tmp_path_factory.mktemp("replay"), {}

    def run(family):
        if family not in made:
            file = root / f"{family}.py"
            file.write_text(small_run.config(text, root / "cache", family))
            made[family] = workdir = root / family
            settings = EACH_ROW | OF_FAMILY[family]
            assert runner.train(runner.Request(str(file), str(workdir), settings)) == 0
        return made[family]

    return run


@pytest.fixture(scope="module")
def reading(run_of):
    """Opens a run of a family to be read, once: its steps are compiled for all tests."""
    opened = {}

    def open_run(family="gpt2"):
        if family not in opened:
            opened[family] = opening.reading(runner.Request(None, str(run_of(family))))
        return opened[family]

    return open_run


@pytest.fixture
def copied(reading, tmp_path):
    """The run of the decoder, in a folder of its own."""
    folder = tmp_path / "run"
    shutil.copytree(reading().path, folder)
    return dataclasses.replace(reading(), path=str(folder))


def content(folder):
    """Hash of every file below a folder."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_any_steps_come_out_as_they_were_recorded(reading):
    run = reading()
    before = content(run.path)
    rows = small_run.comparable(metrics.read(Path(run.path, "metrics.jsonl")))
    recorded = {row["step"]: row for row in rows}
    steps = np.random.default_rng(7).choice(np.arange(1, STEPS + 1), 10, replace=False).tolist()
    for step in steps:
        found = replay_lib.replay(run, step)
        assert found.start == (step - 1) // 5 * 5
        assert {"step": step, "split": "train"} | found.step.row == recorded[step]
        assert found.step.loss == np.float32(recorded[step]["loss"])
        assert found.step.grad_norm == recorded[step]["grad_norm"]
        assert found.compared == list(range(found.start + 1, step + 1))
        assert found.differences == ()
        assert page.verdict(found).startswith("as recorded, bit for bit")
    assert content(run.path) == before


@pytest.mark.parametrize("family", ["gpt2", "bert", pytest.param("t5", marks=pytest.mark.slow)])
def test_what_tokens_cost_comes_to_the_loss_of_the_step(reading, family):
    run = reading(family)
    found = replay_lib.replay(run, STEPS)
    assert found.differences == ()
    batches = run.data.train_batches(run.program)
    blamed = blame.documents(batches, found.batch, found.explained.nats, run.ids)
    rows = norms.of_step(run.config.model, found.explained, found.before)
    shown = page.render(run, found, blamed).decode()
    weights_BP = np.float64(found.batch["weights"])
    loss = (weights_BP * found.explained.nats).sum() / weights_BP.sum()
    assert loss == pytest.approx(found.step.loss, rel=2e-6)
    # Documents share all predictions, and each of these has one that it belongs to.
    assert sum(each.weight for each in blamed) == weights_BP.sum()
    assert sum(each.nats for each in blamed) / weights_BP.sum() == pytest.approx(loss)
    assert all(len(each.documents) == 1 for each in blamed)
    # What the page shows of tokens is that, too: three digits of each.
    told = [float(cost) for cost in re.findall(r'title="([\d.e-]+) nats', shown)]
    assert len(told) == (weights_BP > 0).sum()
    assert np.mean(told) == pytest.approx(loss, rel=1e-3)
    assert len(shown) < 5e6
    # The parts' gradients are those of the whole, and every parameter has its norm.
    assert norms.total([row.gradient for row in rows]) == pytest.approx(found.step.grad_norm, 1e-5)
    assert len({row.layer for row in rows if "layer" in row.layer}) == (4 if family == "t5" else 2)
    assert all(row.times is not None and row.update > 0 for row in rows if row.gradient)


def test_a_bad_document_is_named_first(copied):
    """By the command line, where no checkpoint is left before the step."""
    step = next(s for s in range(STEPS, 0, -1) if has_junk(copied, s))
    for saved in finished(copied.checkpoints):
        if saved < step:
            shutil.rmtree(Path(copied.checkpoints, str(saved)))
    before = content(copied.path)
    done = tool_run.run("main", "--mode=replay", f"--workdir={copied.path}", f"--step={step}")
    assert done.code == 0, done.err
    told = f"no checkpoint before step {step} is left: replaying {step} steps from the state that"
    assert told in done.out
    assert f"as recorded, bit for bit: {step} rows up to {step}" in done.out
    first, *others = [line for line in done.out.splitlines() if " nats x " in line]
    assert "junk.jsonl:1 " in first
    assert len(others) == 2
    file = Path(copied.path, "replay", f"{step}.html")
    assert done.out.splitlines()[-1] == f"wrote {file}"
    shown = file.read_text()
    assert re.search(r"<code>([^<]*)</code>", shown).group(1) == "junk.jsonl:1"
    first_row = shown[shown.index("<article>") :]
    assert "junk.jsonl:1" in re.search(r'class="muted">([^<]*)', first_row).group(1)
    file.unlink()
    assert content(copied.path) == before


def has_junk(run, step):
    """Whether the batch of a step has some of the document of random characters."""
    batches = run.data.train_batches(run.program)
    (rows,) = batches.sources
    windows = batches(step - 1)["info/window"].tolist()
    origins = [rows.store.origin(d) for window in windows for d in rows.documents(window)]
    return ("junk.jsonl", 1) in origins


def test_a_damaged_checkpoint_is_passed_over(copied):
    for file in Path(copied.checkpoints, "5", "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:50])
    found = replay_lib.replay(copied, 6)
    assert found.start == 0
    assert found.differences == ()
    assert finished(copied.checkpoints) == [5, 10, 15, 20, 24]


def test_what_differs_is_said(copied):
    file = Path(copied.path, "metrics.jsonl")
    rows = list(metrics.read(file))
    file.write_text(file.read_text().replace(f'"loss": {rows[6]["loss"]}', '"loss": 9.5', 1))
    found = replay_lib.replay(copied, 8)
    moved = dataclasses.replace(found, reasons=("device was TPU v9, is cpu",))
    (different,) = found.differences
    assert (different.step, different.field, different.recorded) == (7, "loss", 9.5)
    assert page.verdict(moved).startswith("not as recorded: row of step 7 differs in loss by ")
    assert page.verdict(moved).endswith("of 9.5 (device was TPU v9, is cpu)")
    assert page.verdict(moved) in page.render(copied, moved, []).decode()


def test_a_step_between_two_rows(copied):
    file = Path(copied.path, "metrics.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if '"step": 7,' not in line))
    found = replay_lib.replay(copied, 7)
    assert found.compared == [6]
    shown = page.render(copied, found, []).decode()
    around = shown[shown.index("no row of its own") :]
    assert re.findall(r'<td class="number">(\d+)</td>', around)[:2] == ["6", "8"]
