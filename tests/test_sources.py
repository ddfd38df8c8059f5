"""Several texts in one run: from the config to the metrics and the checkpoint."""

import json
import shlex
import shutil

import jax
import numpy as np
import pytest
import small_run
from small_run import CORPUS

from lmjax import cli, config_file, families, objectives, runner
from lmjax import fields as fields_lib
from lmjax.data import cache, mixture, prepare
from lmjax.errors import UserError
from lmjax.export import card, facts, recipe, sections
from lmjax.train import copied_checkpoints, loss, metrics, setup, start, workdir
from lmjax.train import data as data_lib
from lmjax.train.state import token_counts, total_tokens

NAMES = ("large", "middle", "small")
QUIET = {"log": lambda line: None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three texts, and a config that mixes them."""
    folder = tmp_path_factory.mktemp("mixture")
    lines = CORPUS.read_text().splitlines(keepends=True)
    parts = (lines[:40], lines[60:75], lines[200:206])
    for name, part in zip(NAMES, parts, strict=True):
        (folder / f"{name}.jsonl").write_text("".join(part))
    config = small_run.config("bundled:corpus_small", folder / "cache")
    fields = f"sources={sources(folder)!r}, temperature=2.0, eval_fraction=0.15"
    config = config.replace("eval_fraction=0.1", fields).replace("num_layers=2", "num_layers=1")
    (folder / "config.py").write_text(config)
    return folder


def sources(folder, names=NAMES):
    return tuple((name, f"{folder}/{name}.jsonl") for name in names)


@pytest.fixture(scope="module")
def config(folder):
    raw = config_file.load(f"{folder}/config.py")
    return config_file.make(raw, {"train.global_batch_size": 16})


@pytest.fixture(scope="module")
def finished(folder):
    """A run on raw text, which nothing disturbed."""
    assert runner.train(runner.Request(f"{folder}/config.py", f"{folder}/run")) == 0
    return folder / "run"


def rows(workdir, split=None):
    found = small_run.comparable(metrics.read(workdir / "metrics.jsonl"))
    return [row for row in found if split in (None, row["split"])]


def of_sources(row, field):
    return np.array([row.get(f"{field}/{name}", np.nan) for name in NAMES])


def test_one_tokenizer_is_trained_on_all_texts(finished):
    stores = [json.loads(p.read_bytes()) for p in finished.parent.glob("cache/stores/*/man*.json")]
    assert len(stores) == 3
    assert len({store["tokenizer"]["sha256"] for store in stores}) == 1
    assert len(list(finished.parent.glob("cache/tokenizers/*/"))) == 1


def test_numbers_of_the_sources_add_up_to_the_whole(finished):
    stores = data_lib.open_stores(workdir.read(finished).config).train
    num_rows = np.array([-(-store.num_tokens // 32) for store in stores])
    share = mixture.shares([store.num_tokens for store in stores], 2.0)
    before = np.zeros(3)
    for row in rows(finished, "train"):
        tokens = of_sources(row, "tokens")
        assert tokens.sum() == row["tokens"]
        mean = np.average(of_sources(row, "loss"), weights=tokens - before)
        assert mean == pytest.approx(row["loss"], rel=1e-6)
        used = of_sources(row, "epochs") * num_rows
        assert used.sum() == pytest.approx(8 * row["step"])
        assert np.abs(used - 8 * row["step"] * np.array(share)).max() < 1.01
        before = tokens
    held_out = rows(finished, "eval")
    assert len(held_out) == 3
    for row in held_out:
        tokens = of_sources(row, "tokens")
        assert tokens.sum() == row["tokens"] <= 2 * 8 * 32
        assert np.average(of_sources(row, "loss"), weights=tokens) == pytest.approx(row["loss"])


def test_the_log_says_what_is_mixed(finished):
    log = (finished / "lmjax.log").read_text()
    for name in NAMES:
        assert f"INFO   {name:6} " in log
    assert "of sources: large " in log


def test_a_resumed_run_is_the_same_with_its_stores_elsewhere(finished, tmp_path):
    resumed = tmp_path / "run"
    shutil.copytree(finished, resumed)
    shutil.rmtree(resumed / "checkpoints/24")
    stores = data_lib.open_stores(workdir.read(finished).config).train
    moved = tuple((name, str(tmp_path / name)) for name in NAMES)
    for store, (_, path) in zip(stores, moved, strict=True):
        shutil.copytree(store.path, path)
    assert runner.train(runner.Request(None, str(resumed), {"data.sources": moved})) == 0
    assert rows(resumed) == rows(finished)
    mine, theirs = (small_run.parameters(w / "checkpoints/24") for w in (resumed, finished))
    small_run.assert_same_bits(mine, theirs)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.sources": (("small", "a"), ("large", "b"))}, "large middle small, .* small large"),
        ({"data.temperature": 1.0}, "data.temperature belongs to the recipe"),
        ({"data.weights": (1.0, 1.0, 1.0)}, "data.weights belongs to the recipe"),
    ],
)
def test_a_run_keeps_its_recipe(finished, overrides, message):
    with pytest.raises(UserError, match=message):
        runner.train(runner.Request(None, str(finished), overrides))


def test_another_text_of_the_same_name_is_refused(finished):
    changed = dict(sources(finished.parent)) | {"small": f"{finished.parent}/middle.jsonl"}
    overrides = {"data.sources": tuple(changed.items())}
    overrides["tokenizer.path"] = str(finished / "tokenizer")
    with pytest.raises(UserError, match="data_sha256/small of the data"):
        runner.train(runner.Request(None, str(finished), overrides))


@pytest.fixture(scope="module")
def another(finished):
    """Fields of another mixture that starts from those weights; held out by one text."""
    return {
        "data.sources": sources(finished.parent, NAMES[:2]),
        "data.weights": (3, 1),
        "data.temperature": 1.0,
        "data.eval_path": f"{finished.parent}/small.jsonl",
        "train.init_from": str(finished),
        "train.init_optimizer": True,
        "train.num_steps": 4,
        "eval.every": 4,
        "log.every": 4,
    }


def test_moments_of_a_run_that_counts_other_sources(finished, another):
    raw = config_file.load(f"{finished.parent}/config.py")
    config = setup.resolve(start.inherit(config_file.make(raw, another)))
    program = setup.make_program(config, jax.devices()[:1])
    state, _ = start.from_run(program)
    assert state.tokens.shape == (2, 2)
    assert not state.tokens.any()
    assert state.window["source_nats"].shape == (2,)
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim > 1]
    assert moments
    assert all(x.any() for x in moments)
    stores = data_lib.open_stores(config)
    data = data_lib.open_data(config, stores, program.objective, program.eval_objective)
    assert data.shares == {"large": 0.75, "middle": 0.25}
    assert "source" not in data.eval_batches(program)(0)
    assert "eval_data_sha256" in data.identity()


@pytest.mark.slow
def test_another_mixture_starts_from_its_weights(finished, another, tmp_path):
    request = runner.Request(f"{finished.parent}/config.py", str(tmp_path / "run"), another)
    assert runner.train(request) == 0
    train, held_out = rows(tmp_path / "run")
    assert [train[f"tokens/{name}"] for name in NAMES[:2]] == [24 * 32, 8 * 32]
    assert train["loss"] < rows(finished, "train")[0]["loss"]
    assert not [field for field in held_out if "/" in field]


@pytest.mark.parametrize(("devices", "micro"), [(2, 4), pytest.param(1, 8, marks=pytest.mark.slow)])
def test_devices_and_micro_batches_change_nothing(finished, devices, micro):
    """The first row of metrics, which was made on eight devices, on others."""
    config = workdir.read(finished).config
    config = fields_lib.replace(config, {"train.micro_batch_size": micro})
    stores = data_lib.open_stores(config)
    ids = setup.make_ids(config, stores.tokenizer)
    program = setup.make_program(config, jax.devices()[:devices], ids)
    data = data_lib.open_data(config, stores, program.objective, program.eval_objective)
    batches = data.train_batches(program)
    whole = data_lib.all_train_batches(config, stores, program.objective)
    with program.context():
        steps, state = setup.make_steps(program, data.tables), program.init()
        for step in range(3):
            batch = batches(step)
            assert all(np.array_equal(batch[name], field) for name, field in whole(step).items())
            state, got = steps(state, batch, fresh=step == 0)
    row = rows(finished, "train")[0]
    assert row["step"] == 3
    assert token_counts(got["tokens"]) == of_sources(row, "tokens").tolist()
    assert total_tokens(got["tokens"]) == row["tokens"]
    window = jax.device_get(got["window"])
    assert window["source_nats"].shape == (3,)
    again = loss.summarise(window, exact_likelihood=True, names=NAMES)
    assert again == pytest.approx({name: row[name] for name in again}, rel=1e-3)


def test_shares_of_real_batches_and_epochs_of_each_source(config):
    stores = data_lib.open_stores(config)
    config = setup.resolve(config, stores.tokenizer.config["requested_vocab_size"])
    objective = objectives.make(config, setup.make_ids(config, stores.tokenizer))
    batches = data_lib.all_train_batches(config, stores, objective)
    sizes = [len(rows) for rows in batches.sources]
    made = [batches(step) for step in range(2 * sum(sizes) // 16)]
    source, window, inputs = (
        np.concatenate([batch[name] for batch in made])
        for name in ("source", "info/window", "inputs")
    )
    counts = np.cumsum(source[:, None] == np.arange(3), axis=0)
    wanted = np.outer(np.arange(len(source)) + 1, batches.mixture.share_K)
    assert np.abs(counts - wanted).max() < 1 + 3 * len(source) / mixture.PERIOD
    for k, size in enumerate(sizes):
        order = window[source == k]
        epochs = order[: len(order) // size * size].reshape(-1, size)
        assert len(epochs) == (1, 2, 14)[k]
        assert (np.sort(epochs, axis=1) == np.arange(size)).all()
        text = stores.train[k].read(32 * order[:5], 32)
        assert np.array_equal(inputs[source == k][:5], text)


def test_raw_text_takes_the_tokenizer_of_the_stores_beside_it(finished, tmp_path):
    def prepared(name, tokenizer):
        output = str(tmp_path / f"{name}_store")
        prepare.prepare([f"{finished.parent}/{name}.jsonl"], tokenizer, output, eval_fraction=0.2)
        return output

    first = prepared("small", str(finished / "tokenizer"))
    paths = [f"{finished.parent}/large.jsonl", first]
    found = cache.shared_tokenizer(paths, str(tmp_path), **QUIET)
    assert found == f"{first}/tokenizer"
    assert cache.shared_tokenizer(paths[:1], str(tmp_path), **QUIET) is None
    other = cache.ensure_tokenizer(
        paths[:1],
        vocab_size=500,
        model_type="bpe",
        character_coverage=0.9995,
        sample_bytes=100_000,
        text_key="text",
        text_split="file",
        cache_dir=str(tmp_path),
        **QUIET,
    )
    second = prepared("middle", other)
    with pytest.raises(UserError) as caught:
        cache.shared_tokenizer([*paths, second], str(tmp_path), **QUIET)
    for part in (first, second, f"--tokenizer={first}/tokenizer"):
        assert part in str(caught.value)


def test_the_card_names_the_sources(finished):
    with copied_checkpoints.reading(str(finished / "checkpoints")) as (checkpoints, step):
        found = facts.gather(str(finished), step, checkpoints.meta(step))
    fmt = families.FORMATS["gpt2"][1]
    subject = sections.Subject(found, fmt, {"bos": 1, "eos": 1}, "float32", None, None)
    content = str(card.make(subject))
    last = rows(finished, "eval")[-1]
    stores = data_lib.open_stores(found.config).train
    share = mixture.shares([store.num_tokens for store in stores], 2.0)
    for k, (name, store) in enumerate(zip(NAMES, stores, strict=True)):
        (line,) = [line for line in content.splitlines() if line.startswith(f"| {name} |")]
        assert f"| {share[k]:.4%} |" in line
        assert f"{store.num_documents:,} documents, {store.num_tokens:,} tokens" in line
        assert line.endswith(f"| {last[f'loss/{name}']} |")
        assert f"{name} `{store.manifest_sha256}`" in content
    assert f"{sum(store.num_tokens for store in stores):,} tokens" in content
    assert "to the power of 1 / 2;" in content
    assert str(finished.parent) not in content
    public = recipe.public(found.run).config
    assert public.data.sources == tuple((name, f"{name}.jsonl") for name in NAMES)
    flags = shlex.split(recipe.command(public))
    flag = next(flag for flag in flags if flag.startswith("--config.data.sources="))
    again = cli.parse_overrides([flag])["data.sources"]
    assert again == tuple((name, "TEXT_OR_STORE") for name in NAMES)
