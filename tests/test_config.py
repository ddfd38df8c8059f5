import json

import pytest

from lmjax import config as config_lib
from lmjax import fields as fields_lib
from lmjax.errors import UserError


def test_round_trip_through_json_and_hash():
    config = fields_lib.from_dict(
        {"optimizer": {"weight_decay": [["stack/.*", 0.1], [".*", 0.0]]}, "train": {"seed": 3}}
    )
    again = fields_lib.from_dict(json.loads(json.dumps(fields_lib.to_dict(config))))
    assert again == config
    assert hash(again) == hash(config)
    assert config.optimizer.weight_decay == (("stack/.*", 0.1), (".*", 0.0))


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ({"train": {"num_step": 3}}, ["config.train.num_step", "config.train.num_steps?"]),
        ({"mdel": {"hidden_size": 8}}, ["did you mean config.model.hidden_size?"]),
        ({"hidden_size": 8}, ["did you mean config.model.hidden_size?"]),
        ({"train": 3}, ["config.train is a group"]),
        ({"train": {"num_steps": "many"}}, ["config.train.num_steps='many' (str)", "integer"]),
        ({"train": {"num_steps": True}}, ["config.train.num_steps=True (bool)"]),
        ({"train": {"num_steps": 0}}, ["config.train.num_steps=0", "greater than 0"]),
        ({"train": {"dtype": "fp16"}}, ["'fp16'", "'bfloat16'"]),
        ({"model": {"hidden_size": 10, "num_heads": 4}}, ["hidden_size=10", "num_heads=4"]),
        ({"data": {"seq_len": 2048}}, ["seq_len=2048", "max_positions=1024"]),
        (
            {"train": {"global_batch_size": 10, "micro_batch_size": 3}},
            ["micro_batch_size=3", "global_batch_size=10"],
        ),
        ({"objective": {"mask_rate": 1.0}}, ["config.objective.mask_rate=1.0", "less than 1"]),
        ({"objective": {"mean_span_length": 0.5}}, ["mean_span_length=0.5", "equal to 1"]),
        (
            {"objective": {"mask_token_share": 0.8, "random_token_share": 0.3}},
            ["mask_token_share=0.8", "random_token_share=0.3"],
        ),
        (
            {"schedule": {"warmup_steps": 50, "decay_steps": 10}},
            ["warmup_steps=50", "decay_steps=10"],
        ),
    ],
)
def test_mistakes_are_named_in_one_line(raw, parts):
    with pytest.raises(UserError) as caught:
        fields_lib.from_dict(raw)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("train.num_steps", "12", 12),
        ("optimizer.learning_rate", "1e-3", 1e-3),
        ("optimizer.clip_norm", "None", None),
        ("data.path", "2024", "2024"),
        ("data.eval_path", "None", None),
        ("model.tie_embeddings", "False", False),
        ("train.micro_batch_size", "4", 4),
        ("train.micro_batch_size", "auto", "auto"),
        ("train.unroll_layers", "auto", "auto"),
        ("optimizer.weight_decay", "((r'.*', 0.5),)", ((".*", 0.5),)),
    ],
)
def test_command_line_values(name, text, value):
    parsed = fields_lib.parse_value(name, text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_every_field_says_what_it_is_and_whether_it_may_change():
    names = fields_lib.field_names()
    assert names["train.num_steps"]
    assert names["train.micro_batch_size"]
    assert not names["optimizer.learning_rate"]
    assert not names["schedule.decay_steps"]

    def documented(section):
        for info in type(section).model_fields.values():
            value = info.default
            if isinstance(value, config_lib.Section):
                yield from documented(value)
            else:
                yield info.description

    assert all(documented(config_lib.Config()))
