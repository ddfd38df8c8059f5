"""Small tokenizers of both kinds, configs of the three architectures, a run of seconds and its
export: for all that looks at what exports write."""

import pytest
import small_run

from lmjax import families, runner
from lmjax import fields as fields_lib
from lmjax.data import files, tokenizer, tokenizer_training
from lmjax.train import setup

OBJECTIVES = {"encoder": "mlm", "decoder": "clm", "encoder_decoder": "span_corruption"}
KINDS = [("unigram", 600), ("unigram", 2000), ("bpe", 600), ("bpe", 2000)]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(kind, number of ids) -> tokenizer."""
    known = {}

    def of(kind, size):
        if (kind, size) not in known:
            folder = tmp_path_factory.mktemp("tokenizer")
            text = files.find_files("bundled:corpus_small")
            more = {"vocab_size": size, "model_type": kind, "sample_bytes": 200_000}
            tokenizer_training.train(text, folder, **more)
            known[kind, size] = tokenizer.load(folder)
        return known[kind, size]

    return of


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def any_tokenizer(request, trained):
    return trained(*request.param)


@pytest.fixture
def make_config():
    """(family, tokenizer, objective, fields of the model) -> resolved config of a small run.

    None for the usual objective; else its name, or its fields.
    """

    def make(family, tok, objective=None, **fields):
        base = families.FAMILIES[family].BASE
        name = objective or OBJECTIVES[base["architecture"]]
        small = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "mlp_size": 64} | fields
        raw = {
            "family": family,
            "model": base | {"head_dim": 16} | small,
            "objective": objective if isinstance(objective, dict) else {"name": name},
            "data": {"seq_len": 64},
        }
        return setup.resolve(fields_lib.from_dict(families.resolve(raw)), tok.vocab_size)

    return make


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run of a few steps, in a folder with a name of its own."""
    folder = tmp_path_factory.mktemp("secret_place")
    text = folder / "some_text.jsonl"
    text.write_text("".join(small_run.CORPUS.read_text().splitlines(keepends=True)[:60]))
    file = folder / "recipe.py"
    file.write_text(small_run.config(text, folder / "cache"))
    overrides = {"train.num_steps": 4, "log.every": 2, "eval.every": 2}
    request = runner.Request(str(file), str(folder / "my_run"), overrides)
    assert runner.train(request) == 0
    return folder / "my_run"


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    """Its export; not to be changed."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    small_run.export(run, folder)
    return folder
