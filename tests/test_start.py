"""Runs that start from the weights of another one, and imported models that go on."""

import json

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import small_run

from lmjax import config_file as config_file_lib
from lmjax import runner
from lmjax.data import output
from lmjax.errors import UserError
from lmjax.export import from_hf, to_hf
from lmjax.train import metrics, setup, start

SHORT = {"train.num_steps": 3, "log.every": 1}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return small_run.config_file(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def source(config_file, tmp_path_factory):
    """A finished run of a few steps."""
    workdir = str(tmp_path_factory.mktemp("source") / "run")
    assert runner.train(runner.Request(config_file, workdir, SHORT)) == 0
    return workdir


@pytest.fixture(scope="module")
def imported(source, tmp_path_factory):
    """The same model, exported and imported again: without tokenizer and optimizer."""
    folder = tmp_path_factory.mktemp("imported")
    quiet = lambda *_: None
    with output.new_folder(str(folder / "hf"), marker="config.json", log=quiet) as hf:
        to_hf.export(source, hf, with_tokenizer=False, progress=quiet)
    published = from_hf.check(str(folder / "hf"))
    with output.new_folder(str(folder / "run"), marker="config.json", log=quiet) as workdir:
        config = from_hf.config_of(published, {"train.num_steps": 2, "data.seq_len": 32})
        from_hf.write(published, config, workdir, quiet)
    return str(folder / "run")


def first_state(config_file, init_from, **train):
    overrides = {"train.init_from": init_from, **{f"train.{k}": v for k, v in train.items()}}
    config = config_file_lib.make(config_file_lib.load(config_file), overrides)
    program = setup.make_program(setup.resolve(start.inherit(config)), jax.devices()[:1])
    with program.context():
        return start.from_run(program)


def whole_state(workdir):
    return ocp.StandardCheckpointer().restore(f"{workdir}/checkpoints/3/state")


def test_weights_of_another_run(config_file, source):
    state, said = first_state(config_file, source)
    small_run.assert_same_bits(jax.device_get(state.params), whole_state(source)["params"])
    assert int(state.step) == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.device_get(state.opt_state)))
    assert said == f"starting from the weights of {source} at step 3"


def test_its_moments_too_but_not_its_schedule(config_file, source):
    state, said = first_state(config_file, source, init_optimizer=True)
    is_schedule = lambda x: isinstance(x, optax.ScaleByScheduleState)
    parts = jax.tree.leaves(state.opt_state, is_leaf=is_schedule)
    assert [int(part.count) for part in parts if is_schedule(part)] == [0]
    mine = [jax.device_get(part) for part in parts if not is_schedule(part)]
    theirs = jax.tree.leaves(whole_state(source)["opt_state"])
    for leaf in mine:
        assert any(np.array_equal(leaf, other) for other in theirs)
    assert any(leaf.ndim == 0 and leaf == 3 for leaf in mine)
    assert said.endswith("and its optimizer's moments")


def test_a_run_by_the_recipe_of_its_source(source, tmp_path):
    overrides = {"train.init_from": source, "optimizer.learning_rate": 1e-5} | SHORT
    request = runner.Request(None, str(tmp_path / "run"), overrides)
    assert runner.train(request) == 0
    rows = list(metrics.read(tmp_path / "run" / "metrics.jsonl"))
    before = [row for row in metrics.read(f"{source}/metrics.jsonl") if row["split"] == "eval"]
    after = [row for row in rows if row["split"] == "eval"]
    # Almost no steps: what the source had learned is still there.
    assert after[-1]["loss"] == pytest.approx(before[-1]["loss"], abs=1e-3)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert stored["tokenizer"]["path"] == f"{source}/tokenizer"
    assert stored["schedule"]["decay_steps"] == 4  # of this run: its warm-up
    assert runner.train(request) == 0  # the same command again


def test_an_imported_model_goes_on_with_its_tokenizer(imported, source, config_file, tmp_path):
    data = {"data.path": str(tmp_path / "text.txt"), "data.cache_dir": str(tmp_path / "cache")}
    (tmp_path / "text.txt").write_text("One sentence.\n\nAnother one, somewhat longer.\n\n" * 50)
    data["data.text_split"] = "paragraph"
    request = runner.Request(None, imported, {"data.path": data["data.path"]})
    with pytest.raises(UserError, match=r"imported without its tokenizer.*tokenizer\.path"):
        runner.train(request)
    stored = {"train.init_from": imported, "tokenizer.path": f"{source}/tokenizer"}
    request = runner.Request(config_file, str(tmp_path / "run"), stored | SHORT)
    assert runner.train(request) == 0
    rows = [r for r in metrics.read(tmp_path / "run" / "metrics.jsonl") if r["split"] == "train"]
    unlearned = np.log(640)
    assert rows[0]["loss"] < unlearned - 0.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train.init_from": "/nowhere"}, "/nowhere holds no run"),
        ({"model.num_layers": 3}, r"model\.num_layers \(2 -> 3\)"),
        ({"optimizer.name": "lion", "train.init_optimizer": True}, "'adamw' and this run .*'lion'"),
        ({"train.init_from": None, "train.init_optimizer": True}, "says nothing without"),
    ],
)
def test_weights_that_do_not_fit(config_file, source, changes, words):
    raw, overrides = config_file_lib.load(config_file), {"train.init_from": source} | changes
    with pytest.raises(UserError, match=words):
        start.inherit(config_file_lib.make(raw, overrides))


def test_an_import_has_no_moments(config_file, imported, source):
    with pytest.raises(UserError, match="weights alone"):
        first_state(config_file, imported, init_optimizer=True)
