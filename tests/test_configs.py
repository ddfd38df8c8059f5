"""The shipped tiny configs, run as a user runs them: do they learn, and from context? Is what they
export the same model to transformers?"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_run
import stock_classes

from lmjax.data.pipeline import EvalBatches
from lmjax.train import data as data_lib
from lmjax.train import setup, trained, workdir
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.evaluate import evaluate

CONFIGS = Path(__file__).parents[1] / "configs"


class Shuffled:
    """Held-out batches in which the tokens that are given, not predicted, trade places in a row."""

    def __init__(self, batches: EvalBatches, special: tuple[int, ...], num_ids: int):
        self.batches, self.objective, self.sources = batches, batches.objective, batches.sources
        self.special, self.num_ids = special, num_ids
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return len(self.batches)

    def __call__(self, chunk):
        batch = dict(self.batches(chunk))
        name = "enc_inputs" if "enc_inputs" in batch else "inputs"
        inputs = batch[name].copy()
        fixed = np.isin(inputs, self.special) | (inputs >= self.num_ids)  # sentinels are above
        if "predict_at" in batch:
            chosen = np.zeros(inputs.shape, bool)
            np.put_along_axis(chosen, batch["predict_at"], batch["weights"] > 0, axis=1)
            fixed |= chosen
        for row, stays in zip(inputs, fixed, strict=True):
            row[~stays] = self.rng.permutation(row[~stays])
        return batch | {name: inputs}


# Those that leave for transformers in these tests; of the others `tests/export` has small models.
EXPORTED = ("bert_tiny", "gpt2_tiny", "t5_tiny")
LEARNING = sorted(file.stem for file in CONFIGS.glob("*_tiny.py") if file.stem not in EXPORTED)


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # 2026-11: of third-party imports (torch, transformers)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXPORTED)
def test_a_tiny_config_learns_and_leaves_for_transformers(name, tmp_path):
    stock_classes.library()
    _train(name, tmp_path / "run")
    _assert_context_is_used(tmp_path / "run")
    small_run.export(tmp_path / "run", tmp_path / "exported")
    run = trained.load(str(tmp_path / "run"), devices=jax.devices()[:1])
    stock_classes.assert_same_tokenizer(run, tmp_path / "exported", stock_classes.bundled_lines())
    stock_classes.assert_same_use(run, tmp_path / "exported")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", LEARNING)
def test_a_tiny_config_learns(name, tmp_path):
    _train(name, tmp_path / "run")
    _assert_context_is_used(tmp_path / "run")


def _train(name, folder):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "lmjax.main",
            f"--config={CONFIGS / name}.py",
            f"--workdir={folder}",
        ],
        check=True,
        env=os.environ | {"XLA_FLAGS": ""},
    )


def _assert_context_is_used(path):
    config = workdir.read(path).config
    stores = data_lib.open_stores(config)
    ids = setup.make_ids(config, stores.tokenizer)
    program = setup.make_program(config, jax.devices()[:1], ids)
    data = data_lib.open_data(config, stores, program.objective, program.eval_objective)
    checkpoints = Checkpoints(path / "checkpoints", keep=config.checkpoint.keep)
    with program.context():
        step = setup.make_steps(program, data.tables).eval_step
        state = checkpoints.restore(config.train.num_steps, program.abstract, program.shardings)
        batches = data.eval_batches(program)
        rows = [
            evaluate(state.params, b, step, program.place)
            for b in (batches, Shuffled(batches, ids.special, ids.num_ids))
        ]
    checkpoints.close()
    given, shuffled = rows
    nats = 1.0 if config.model.architecture == "decoder" else 0.15
    assert given["content_loss"] < given["content_unigram_loss"] - nats
    assert shuffled["content_loss"] > given["content_loss"] + 0.1
