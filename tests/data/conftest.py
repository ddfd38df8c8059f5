"""Small trained tokenizers and stores that the tests of this folder share."""

import numpy as np
import pytest
from random_text import make_text, write_jsonl

from lmjax.data import files, prepare, tokenizer_training


@pytest.fixture(scope="session")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [make_text(rng, int(n)) for n in rng.integers(1, 400, 300)]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> str:
    folder = tmp_path_factory.mktemp("corpus")
    write_jsonl(folder / "a.jsonl", texts[:120])
    write_jsonl(folder / "b.jsonl", texts[120:])
    return str(folder)


@pytest.fixture(scope="session", params=["unigram", "bpe"])
def any_tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _train(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _train("bpe", tmp_path_factory)


def _train(model_type: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    tokenizer_training.train(
        files.find_files("bundled:corpus_small"),
        folder,
        vocab_size=1000,
        model_type=model_type,
        sample_bytes=200_000,
    )
    return folder


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory, corpus: str, tokenizer_path: str) -> str:
    output = str(tmp_path_factory.mktemp("stores") / "store")
    prepare.prepare(
        files.find_files(corpus),
        tokenizer_path,
        output,
        eval_fraction=0.1,
        num_workers=2,
        shard_tokens=4 * 2048,
    )
    return output
