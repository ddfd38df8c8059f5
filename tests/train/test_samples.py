"""What a model does with held-out texts: which texts, what it is shown, what is written down."""

import json
import re
from unittest import mock

import jax
import pytest
import small_run

from lmjax import opening, runner
from lmjax.train import data as data_lib
from lmjax.train import sampler, setup
from lmjax.train.samples import Sample, lines

SENTINEL = re.compile(r"<extra_id_(\d+)>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("samples")


def opened(folder, family, objective=None, number=3):
    """Program and data of a run that samples."""
    file = small_run.config_file(folder, family, objective)
    config = opening.run_config(runner.Request(file, None, {"eval.num_samples": number})).config
    stores = data_lib.open_stores(config)
    config = opening.resolved(config, stores)
    program = setup.make_program(config, ids=setup.make_ids(config, stores.tokenizer))
    return program, data_lib.open_data(config, stores, program.objective, program.eval_objective)


def asked(folder, family, objective=None, number=3):
    """Samples of an untrained model, and the texts that are held out."""
    program, data = opened(folder, family, objective, number)
    told = []
    with program.context():
        ask = sampler.make(program, data)
        params = program.init().params
        samples = ask(params, lambda done, of: told.append((done, of)))
        assert ask(params, lambda done, of: None) == samples
    assert told[0] == (0, number)
    (store,), tokenizer = data.stores.held_out, data.stores.tokenizer
    starts = store.bounds(0, store.num_documents)
    texts = [
        tokenizer.decode(store.read(starts[i : i + 1], int(starts[i + 1] - starts[i]))[0])
        for i in range(store.num_documents)
    ]
    assert [sample.index for sample in samples] == list(range(number))
    assert len({sample.prompt for sample in samples}) == number
    return samples, texts


def is_beginning(text, documents):
    return any(document.startswith(text) for document in documents)


def test_a_decoder_goes_on_with_the_beginning_of_a_document(folder):
    samples, documents = asked(folder, "gpt2")
    for sample in samples:
        assert is_beginning(sample.prompt + sample.reference, documents)
        assert sample.prompt
        assert sample.text
        assert sample.filled is None


def test_an_encoder_fills_the_masks_of_one(folder):
    samples, documents = asked(folder, "bert")
    for sample in samples:
        assert is_beginning(sample.reference, documents)
        around = "(.+)".join(map(re.escape, sample.prompt.split("<mask>")))
        for text in (sample.text, sample.reference):
            assert re.fullmatch(around, text, re.DOTALL)


def spans(text):
    """{number of a sentinel: what stands behind it}."""
    _, *parts = SENTINEL.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def with_spans(prompt, found):
    return SENTINEL.sub(lambda match: found[match[1]], prompt)


def test_an_encoder_decoder_writes_the_spans_that_are_hidden(folder):
    samples, documents = asked(folder, "t5")
    for sample in samples:
        assert is_beginning(with_spans(sample.prompt, spans(sample.reference)), documents)
        around = ".*".join(map(re.escape, SENTINEL.split(sample.prompt)[::2]))
        assert re.fullmatch(around, sample.filled, re.DOTALL)


def test_one_that_restores_reads_masks_and_writes_the_whole_text(folder):
    samples, documents = asked(folder, "bart")
    for sample in samples:
        assert "<mask>" in sample.prompt
        assert is_beginning(sample.reference, documents)
        assert sample.filled is None


@pytest.mark.slow
def test_what_is_shown_follows_from_the_objective(folder):
    samples, documents = asked(folder, "t5", "prefix_lm")
    for sample in samples:
        assert is_beginning(sample.prompt + sample.reference, documents)
    samples, _ = asked(folder, "t5", "ul2", number=6)
    for sample in samples:
        first = int(SENTINEL.match(sample.prompt)[1])  # the mode
        assert first >= 128
        if sample.filled is not None:
            assert not SENTINEL.match(sample.filled) or SENTINEL.match(sample.filled)[1] != first


def test_a_model_that_has_diverged_is_told_and_not_the_end(folder):
    program, data = opened(folder, "gpt2", number=1)
    with program.context():
        nan = jax.tree.map(lambda leaf: leaf * float("nan"), program.init().params)
        ask = sampler.make(program, data)
        with mock.patch.object(sampler.logger, "warning") as warning:
            assert ask(nan, lambda done, of: None) == []
    assert "logits are not finite" in warning.call_args.args[0]


def test_lines_are_json_whatever_the_text_is():
    odd = Sample(0, "one\ntwo  <b>", "\ud800 日本", "\u2028", "`")
    line, rest = lines(7, [odd]).split("\n")
    assert not rest
    assert json.loads(line) == {
        "step": 7,
        "index": 0,
        "prompt": "one\ntwo  <b>",
        "text": "? 日本",
        "reference": "\u2028",
        "filled": "`",
    }


def test_the_console_shows_where_it_went_on():
    assert str(Sample(0, "Once upon\na time", " there was", "")) == "Once upon a time -> there was"
    far = "word " * 40
    filled = Sample(0, f"{far}the <mask> sat", f"{far}the cat sat", "")
    assert str(filled).endswith("the cat sat")
    assert len(str(filled)) < 120
    spans = Sample(0, "The <extra_id_0> sat", "<extra_id_0> cat", "", "The cat sat")
    assert str(spans) == "The <extra_id_0> sat -> The cat sat"
