"""A small tokenizer and store that fuzz tests damage copies of; no test may take much memory."""

import json
import random

import pytest
from fuzzing import peak_mib

from lmjax.data import prepare, tokenizer_training

MAX_GROWTH_MIB = 400
WORDS = "the of and whale sea white man boat naïve café Ωmega 東京 emoji😀 tab\there line\nbreak"


@pytest.fixture(autouse=True)
def _bounded_memory():
    before = peak_mib()
    yield
    assert peak_mib() - before < MAX_GROWTH_MIB


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A file of 120 documents."""
    rng, words = random.Random(0), WORDS.split(" ")
    texts = [" ".join(rng.choices(words, k=rng.randint(1, 300))) for _ in range(120)]
    file = tmp_path_factory.mktemp("corpus") / "a.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


@pytest.fixture(scope="session", params=["bpe", "unigram"])
def tokenizer_path(request, corpus, tmp_path_factory):
    return _tokenizer(request.param, corpus, tmp_path_factory)


@pytest.fixture(scope="session")
def store_path(corpus, tmp_path_factory):
    """A store of many small shards."""
    output = tmp_path_factory.mktemp("stores") / "store"
    tokenizer = _tokenizer("bpe", corpus, tmp_path_factory)
    size = {"eval_fraction": 0.2, "num_workers": 1, "shard_tokens": 2 * 2048}
    prepare.prepare([corpus], tokenizer, output, **size)
    return output


def _tokenizer(model_type, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp(model_type)
    size = {"vocab_size": 320, "model_type": model_type, "sample_bytes": 50_000}
    tokenizer_training.train([corpus], folder, **size)
    return folder
