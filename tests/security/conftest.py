"""What others could have made: a published model, the run it becomes, a tokenizer and a store."""

import shutil

import published
import published_tokenizers
import pytest
from small_run import CORPUS

from lmjax.data import prepare, tokenizer_training


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder of `bert`, `run` (imported of it), `text.jsonl`, `tokenizer` and `store`."""
    root = tmp_path_factory.mktemp("made")
    published.make(root / "bert", "bert", ids={"pad": 0}, vocab_size=640)
    published_tokenizers.wordpiece(root / "bert")
    published.import_folder(root / "bert", root / "run")
    (root / "text.jsonl").write_text("".join(CORPUS.read_text().splitlines(keepends=True)[:12]))
    (root / "tokenizer").mkdir()
    texts = (str(root / "text.jsonl"),)
    tokenizer_training.train(
        texts, str(root / "tokenizer"), vocab_size=400, model_type="bpe", sample_bytes=50_000
    )
    prepare.prepare(
        texts, str(root / "tokenizer"), str(root / "store"), eval_fraction=0.2, num_workers=1
    )
    return root


@pytest.fixture
def copied(made, tmp_path):
    """Copies one of them to the test's own folder and returns where."""
    return lambda name: shutil.copytree(made / name, tmp_path / name)
