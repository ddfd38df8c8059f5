"""JSON lines given to a model: each is something to score, to write on, to learn from, or one line.

No model runs here: what a line's object becomes is made before, and that is where it is refused.
"""

import gzip
import json

import numpy as np
import pytest
from fuzzing import damaged, damaged_json, fuzz, outcome
from hypothesis import given

from lmjax import families, objectives
from lmjax import fields as fields_lib
from lmjax.data import labelled
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.labelled import TextEncoder
from lmjax.infer import jsonl
from lmjax.infer.choice import ChoiceFraming, item
from lmjax.infer.embed import POOLINGS, TextFraming
from lmjax.infer.examples import Framing
from lmjax.infer.fill_mask import MaskFraming
from lmjax.infer.prompts import Prompts
from lmjax.train import setup

FAMILIES = {"gpt2": "clm", "bert": "mlm", "t5": "span_corruption", "bart": "denoising"}
RECORDS = [
    {"text": "the white whale", "id": 1},
    {"token_ids": [5, 300, 7], "more": {"a": [None, 1e308]}},
    {"source": "the sea", "target": "a boat"},
    {"source_ids": [9, 8], "target_ids": [7], "mask_id": 4},
    {"prompt": "time <extra_id_0> man <mask>", "stop": None},
    {"prompt_ids": [5, 6]},
    {"context": "the <blank> sea", "choices": ["white", "long"], "answer": 0, "task": "a"},
    {"context": "the sea", "choices": ["and", "of"], "answer": "of", "id": {}},
]
EXAMPLES = {
    "sequence_classification": {"text": "the white whale", "pair": "a boat", "label": "sea"},
    "token_classification": {"tokens": ["the", "sea"], "tags": ["O", "B-sea"]},
    "span_extraction": {
        "question": "what is white?",
        "context": "the white whale",
        "answers": {"text": ["whale"], "answer_start": [10]},
    },
    "choose": {"context": "the sea", "choices": ["and", "of"], "answer": 0},
    "seq2seq": {"source": "the sea", "target": "the boat"},
    "completion": {"prompt": "the sea", "completion": "and time"},
}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_path):
    return tokenizer_lib.load(tokenizer_path)


def configured(family, objective, **fields):
    """The resolved config of a small model."""
    small = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "head_dim": 8, "vocab_size": 512}
    raw = {"family": family, "objective": {"name": objective} | fields, "data": {"seq_len": 16}}
    raw = families.resolve(raw | {"model": small})
    if head := objectives.head(objective):
        raw["model"]["head"] = head
    return setup.resolve(fields_lib.from_dict(raw))


def uses(family, tokenizer):
    """All that can be done with a line, by a model of this family: functions of its object."""
    config = configured(family, FAMILIES[family])
    said = objectives.describe(config)
    start = setup.decoder_start_id(config, tokenizer)
    framing = Framing(config.model, 512, tokenizer, said.frame, start)
    found = {"score": framing}
    if family == "bert":
        found["fill"] = MaskFraming(framing)
        found |= {pooling: TextFraming(framing, pooling) for pooling in POOLINGS}
    else:
        found["write"] = Prompts.of(config, tokenizer, tokenizer.eos_id)
    choices = ChoiceFraming(framing, said, tokenizer.bos_id, sentinels=range(400, 512))
    found["choose"] = lambda record: choices(item(record))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_objects_of_lines(tokenizer, family):
    functions = uses(family, tokenizer)

    @fuzz
    @given(record=damaged_json(RECORDS))
    def property(record):
        for one in record:
            if not isinstance(one, dict):
                continue
            for name, use in functions.items():
                made = outcome(lambda use=use, one=one: use(one))
                ids = np.concatenate(list(_arrays(made)) or [np.zeros(0, np.int32)])
                assert ((ids >= 0) & (ids < 512)).all(), name
            dumped = json.loads(jsonl.dumped(one))
            assert dumped == one or "NaN" in json.dumps(one)

    property()


def _arrays(made):
    """All integer arrays in what was made of a line."""
    if isinstance(made, np.ndarray) and made.dtype.kind == "i":
        yield made
    elif isinstance(made, (list, tuple)):
        for one in made:
            yield from _arrays(one)
    elif hasattr(made, "__dataclass_fields__"):
        for name in made.__dataclass_fields__:
            yield from _arrays(getattr(made, name))


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_bytes_of_lines(tmp_path, suffix):
    file = tmp_path / f"x{suffix}"
    whole = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)
    compressed = gzip.compress(whole) if suffix.endswith("gz") else whole

    @fuzz
    @given(content=damaged(compressed))
    def property(content):
        file.write_bytes(content)
        chunks = outcome(lambda: [lines for lines, _ in jsonl.read([str(file)])])
        for line in [line for chunk in chunks or [] for line in chunk]:
            assert isinstance(line.record, dict)
            assert line.place.startswith(f"{file}:")
        outcome(lambda: labelled.read(str(file), "train", {}, "tokenizer"))

    property()


@pytest.mark.parametrize("name", objectives.LABELLED)
def test_examples_to_learn_from(tokenizer, name):
    family = {"encoder": "bert", "decoder": "gpt2", "encoder_decoder": "t5"}
    architecture = objectives.OBJECTIVES[name].ARCHITECTURE
    labels, fits = {"labels": ("sea", "O", "B-sea")}, {"truncate": True, "target_length": 6}
    config = configured(family[architecture], name, begins_with_bos=True, **labels, **fits)
    objective = objectives.make(config, setup.make_ids(config, tokenizer))
    encoder = TextEncoder(tokenizer)
    assert objective.encode(EXAMPLES[name], encoder)

    @fuzz
    @given(record=damaged_json(EXAMPLES[name]))
    def property(record):
        example = outcome(lambda: objective.encode(record, encoder))
        outcome(lambda: objectives.labels(config, [record]))
        if example is not None:
            spec = objective.spec(1)
            for field, values in example.row.items():
                assert len(values) <= spec[field][0][1]

    property()
