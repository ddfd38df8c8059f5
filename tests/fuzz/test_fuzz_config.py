"""Configs: whatever a file, a stored run or the command line says, it is a config or one line."""

import json

import pytest
from fuzzing import VALUES, damaged, damaged_json, fuzz, outcome
from hypothesis import given
from hypothesis import strategies as st

from lmjax import cli, config_file, families
from lmjax import fields as fields_lib
from lmjax.config import Config
from lmjax.train import setup, workdir
from lmjax.train.workdir import RunConfig

FIELDS = fields_lib.field_names()
TEXTS = [
    *("", "None", "True", "0", "1", "-1", "3", "64", "1e999", "-1e-9", "0.5", "9" * 5000, "1_000"),
    *("0x10", "1e3", "nan", "[]", "()", "{}", "(1, 2)", "('a', 'b')", "(('a', 0.1),)", "b'x'"),
    *("(" * 300, "-" * 3000 + "1", "1+" * 3000 + "1", "'", '"\\', "lambda: 0", "__import__('os')"),
    *("\0", "\ud800", "é", "a\nb", "auto", "data", "fsdp", "clm", "mlm", "gpt2", "t5", "a=b,c=d"),
    *("/etc/passwd", "gs://a:b@c/d", "bundled:corpus_small", "(('a','x'),('b','y'))", "\\d"),
]
RECIPES = [
    {"family": "gpt2", "model": {"preset": "small"}, "train": {"num_steps": 5}},
    {"family": "bert", "objective": {"name": "mlm", "mask_rate": 0.2}, "data": {"seq_len": 128}},
    {"family": "t5", "objective": {"name": "span_corruption"}, "optimizer": {"name": "adafactor"}},
    {
        "family": "t5",
        "objective": {
            "name": "mixture",
            "mixture": [["span_corruption", 1.0, [["mask_rate", 0.3]]], ["prefix_lm", 0.5, []]],
        },
        "data": {"sources": [["a", "x"], ["b", "y"]], "weights": [1.0, 2.0]},
    },
]


def is_whole(config):
    """A config that was taken hashes, and says all of itself in JSON."""
    assert isinstance(hash(config), int)
    said = json.loads(json.dumps(fields_lib.to_dict(config), allow_nan=False))
    assert fields_lib.from_dict(said) == config
    return config


def resolved(raw, overrides):
    return is_whole(setup.resolve(config_file.make(raw, overrides)))


def test_overrides_of_the_command_line():
    names = st.sampled_from([*FIELDS, "model", "a.b", ".", "model.", "train.num_step"])
    texts = st.sampled_from(TEXTS) | st.text(max_size=20)

    @fuzz
    @given(pairs=st.lists(st.tuples(names, texts), min_size=1, max_size=3), family=st.booleans())
    def property(pairs, family):
        given = [f"--config.{name}={text}" for name, text in pairs]
        raw = RECIPES[0] if family else {}
        outcome(lambda: resolved(raw, cli.parse_overrides(given)))

    property()


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_config_files(number):
    assert resolved(RECIPES[number], {})

    @fuzz
    @given(raw=damaged_json(RECIPES[number]))
    def property(raw):
        outcome(lambda: resolved(raw, {}))

    property()


def test_every_field_of_a_config_file():
    values = st.sampled_from(VALUES)

    @fuzz
    @given(name=st.sampled_from(sorted(FIELDS)), value=values, family=st.sampled_from(RECIPES))
    def property(name, value, family):
        raw = fields_lib.unflatten(fields_lib.flatten(family) | {name: value})
        outcome(lambda: resolved(raw, {}))

    property()


@pytest.fixture(scope="module")
def stored():
    """What the config.json of a run holds."""
    run = RunConfig(resolved(RECIPES[0], {}), {"file": "a.py", "sha256": "0" * 64})
    return workdir.content(run)


def resumed(content, overrides):
    run = workdir.parse(content, "config.json")
    run = workdir.resume(run, {"file": "a.py", "sha256": "0" * 64}, overrides)
    return is_whole(run.config)


@pytest.mark.parametrize("what", ["fields", "bytes"])
def test_the_config_of_a_run_that_goes_on(stored, what):
    whole = json.dumps(stored).encode()
    assert isinstance(resumed(whole, {}), Config)
    change = damaged(whole)
    if what == "fields":
        change = damaged_json(stored).map(lambda content: json.dumps(content).encode())
    overrides = st.just({}) | st.dictionaries(
        st.sampled_from(sorted(FIELDS)), st.sampled_from(VALUES), max_size=2
    )

    @fuzz
    @given(content=change, overrides=overrides)
    def property(content, overrides):
        outcome(lambda: resumed(content, overrides))

    property()


@pytest.mark.parametrize("family", families.FAMILIES)
def test_shapes_of_models(family):
    """Whatever shape is asked for, it is refused or known, without a single parameter in memory."""
    names = [name for name in FIELDS if name.startswith("model.")]
    numbers = st.sampled_from([0, 1, 2, 3, 7, 64, 65, 4096, 2**31, 2**63])
    values = numbers | st.sampled_from([True, False, None, 0.5, "rope", "alibi", "mlm", "head"])

    @fuzz
    @given(changes=st.dictionaries(st.sampled_from(names), values, max_size=3))
    def property(changes):
        raw = {"family": family, "objective": {"name": _objective(family)}}
        outcome(lambda: resolved(raw, changes))

    property()


def _objective(family):
    architecture = families.FAMILIES[family].BASE.get("architecture", "decoder")
    usual = {"decoder": "clm", "encoder": "mlm", "encoder_decoder": "span_corruption"}
    return usual[architecture]
