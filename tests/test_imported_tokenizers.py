"""Imported models with a tokenizer of their own: training, evaluation, scores."""

import functools
import json
import shutil

import jax
import numpy as np
import published
import published_tokenizers as made
import pytest
import small_run
import stock_classes
from small_run import CORPUS

from lmjax import runner
from lmjax.data import prepare, tokenizer
from lmjax.errors import UserError
from lmjax.infer.examples import Framing
from lmjax.train import metrics, trained

IDS = {"bert": {"pad": 0}, "gpt2": {"bos": 0, "eos": 0}}
T5 = {"pad": 0, "eos": 1, "decoder_start": 0}
BART = {"pad": 0, "bos": 3, "eos": 1, "decoder_start": 1}
RECIPE = {
    "data.seq_len": 32,
    "train.num_steps": 5,
    "train.global_batch_size": 8,
    "data.eval_fraction": 0.2,
    "log.every": 1,
    "eval.every": 5,
    "eval.num_batches": 1,
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.jsonl"
    file.write_text("".join(CORPUS.read_text().splitlines(keepends=True)[:30]))
    return str(file)


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    """model_type -> workdir of an import; not to be changed."""
    root = tmp_path_factory.mktemp("imports")
    sentinels = functools.partial(made.pieces, sentinels=20)
    makers = {"bert": made.wordpiece, "gpt2": made.byte_level}
    makers |= {"t5": sentinels, "bart": made.pieces}
    for model_type, ids in {**IDS, "t5": T5, "bart": BART}.items():
        folder = root / "published" / model_type
        folder.parent.mkdir(exist_ok=True)
        positions = {} if model_type == "t5" else {"max_positions": 32}
        size = {"vocab_size": 704 if model_type in ("t5", "bart") else 640}
        published.make(folder, model_type, ids=ids, **size, **positions)
        makers[model_type](folder)
        published.import_folder(folder, root / model_type, RECIPE)
    return root


def trained_steps(workdir):
    rows = list(metrics.read(f"{workdir}/metrics.jsonl"))
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert len(losses) == 5
    assert np.isfinite(losses).all()
    assert [row["step"] for row in rows if row["split"] == "eval"] == [5]


@pytest.fixture
def data(text, tmp_path):
    return {"data.path": text, "data.cache_dir": str(tmp_path / "cache")}


@pytest.mark.parametrize("model_type", IDS)
def test_an_import_goes_on_with_its_own_tokenizer(model_type, imports, data, tmp_path, capsys):
    workdir = str(shutil.copytree(imports / model_type, tmp_path / "run"))
    before = tokenizer.load(f"{workdir}/tokenizer")
    runner.inspect(runner.Request(None, workdir, data), range(1), 1, None)
    shown = capsys.readouterr().out
    assert ("[CLS]" in shown) == (model_type == "bert")
    assert runner.train(runner.Request(None, workdir, data)) == 0
    trained_steps(workdir)
    assert not (tmp_path / "cache" / "tokenizers").exists()
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["tokenizer"]["path"] is None  # the folder may be moved
    assert tokenizer.load(f"{workdir}/tokenizer").sha256 == before.sha256
    moved = str(shutil.move(workdir, tmp_path / "moved"))
    _scores(moved)
    if model_type == "gpt2":
        capsys.readouterr()
        assert runner.evaluate(runner.Request(None, moved, {})) == 0
        assert np.isfinite(json.loads(capsys.readouterr().out.splitlines()[-1])["loss"])


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # 2026-11: of third-party imports (torch, transformers)
@pytest.mark.parametrize("model_type", [*IDS, "t5", "bart"])
def test_what_was_trained_further_leaves_as_it_came(model_type, imports, data, tmp_path):
    stock_classes.library()
    workdir = str(shutil.copytree(imports / model_type, tmp_path / "run"))
    assert runner.train(runner.Request(None, workdir, data)) == 0
    trained_steps(workdir)
    small_run.export(workdir, tmp_path / "exported")
    run = trained.load(workdir, devices=jax.devices()[:1])
    stock_classes.assert_same_ids(run, tmp_path / "exported", stock_classes.bundled_lines())
    stock_classes.assert_same_use(run, tmp_path / "exported")


def _scores(workdir):
    """The score of a text is that of its ids."""
    model = trained.load(workdir, devices=jax.devices()[:1])
    framing = Framing(model.config.model, 640, model.tokenizer, model.frame)
    sentence = "She was the youngest. [MASK]"
    ids = model.tokenizer.encode(sentence).tolist()
    if model.config.model.architecture == "encoder":
        ids = [model.tokenizer.cls_id, *ids, model.tokenizer.sep_id]
    both = [framing({"text": sentence}), framing({"token_ids": ids})]
    for name in ("inputs", "targets"):
        assert np.array_equal(*(getattr(example, name) for example in both))
    if model.config.model.architecture == "encoder":
        plain = [i for i in ids if i not in model.tokenizer.special_ids]
        assert both[0].targets.tolist() == plain
    assert model.tokenizer.mask_id not in both[0].inputs


def test_another_run_starts_from_an_import(imports, data, tmp_path):
    overrides = data | {"train.init_from": str(imports / "gpt2")}
    workdir = str(tmp_path / "run")
    assert runner.train(runner.Request(None, workdir, overrides)) == 0
    trained_steps(workdir)
    found, source = (tokenizer.load(f"{p}/tokenizer") for p in (workdir, imports / "gpt2"))
    assert found.sha256 == source.sha256
    assert found.published_files == source.published_files


def test_a_store_of_another_tokenizer_is_refused(imports, text, tmp_path):
    other, store = tmp_path / "other", str(tmp_path / "store")
    other.mkdir()
    made.byte_level(tmp_path / "files", vocab_size=500)
    tokenizer.JsonTokenizer(made.files_of(tmp_path / "files")).save(other)
    prepare.prepare([text], other, store, eval_fraction=0.2, num_workers=1)
    workdir = str(shutil.copytree(imports / "gpt2", tmp_path / "run"))
    with pytest.raises(UserError, match=r"tokenizer_sha256 of the data .*have changed"):
        runner.train(runner.Request(None, workdir, {"data.path": store}))
    overrides = {"train.init_from": str(imports / "gpt2"), "data.path": store}
    with pytest.raises(UserError, match="was tokenised with another tokenizer than"):
        runner.train(runner.Request(None, str(tmp_path / "new"), overrides))


def test_scores_of_text_and_of_ids(imports, tmp_path):
    from lmjax.infer import score

    model = trained.load(str(imports / "bert"), devices=jax.devices()[:1])
    framing = Framing(model.config.model, 640, model.tokenizer, model.frame)
    ids = [2, *model.tokenizer.encode("the youngest of the two").tolist(), 3]
    scorer = score.Scorer(model.model, model.params, model.batch_sharding, batch_tokens=1024)
    with model.context():
        first, second = scorer(
            [framing({"text": "The youngest  of the two"}), framing({"token_ids": ids})]
        )
    assert first == second
    assert first.num_tokens == len(ids) - 2
