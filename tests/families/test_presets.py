"""The resolution of presets."""

import pytest

from lmjax import families
from lmjax import fields as fields_lib
from lmjax.errors import UserError
from lmjax.families import gpt2


def test_every_preset_is_a_config():
    for preset in gpt2.PRESETS:
        raw = families.resolve({"family": "gpt2", "model": {"preset": preset}})
        model = fields_lib.from_dict(raw).model
        assert model.preset == preset
        assert model.architecture == "decoder"


def test_resolve_lays_the_users_fields_over_the_preset():
    raw = {"family": "gpt2", "model": {"preset": "small", "num_layers": 3}, "train": {"seed": 1}}
    resolved = families.resolve(raw)
    assert resolved["model"]["num_layers"] == 3
    assert resolved["model"]["hidden_size"] == 768
    assert resolved["train"] == {"seed": 1}
    assert raw["model"] == {"preset": "small", "num_layers": 3}


def test_resolve_without_preset_or_family():
    resolved = families.resolve({"model": {"hidden_size": 64}})
    assert resolved["family"] == "gpt2"
    assert resolved["model"] == gpt2.BASE | {"hidden_size": 64}
    assert families.resolve({})["model"] == gpt2.BASE


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"family": "gpt3"}, ["config.family='gpt3'", "gpt2"]),
        ({"family": "zzz"}, ["config.family='zzz'", "there are bert, roberta, "]),
        ({"model": {"preset": "smal"}}, ["config.model.preset='smal'", "small"]),
    ],
)
def test_unknown_names_are_the_users_to_mend(raw, words):
    with pytest.raises(UserError) as error:
        families.resolve(raw)
    assert all(word in str(error.value) for word in words)
