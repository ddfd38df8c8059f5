"""What holds of every objective there is (`lmjax.batch.Objective`)."""

import numpy as np
import pytest
from test_mlm import make_windows

from lmjax import batch as batch_lib
from lmjax import config as config_lib
from lmjax import fields as fields_lib
from lmjax import objectives
from lmjax.batch import Ids, Pieces
from lmjax.noise import RowNoise

_VOTES = np.where(np.arange(384) % 3, 2, 0).astype(np.int8)  # two of three ids begin a word
IDS = Ids(num_ids=90, num_rows=384, pieces=Pieces(_VOTES * 0, _VOTES, _VOTES, _VOTES * 0))
MIXED = (("span_corruption", 2.0, (("mask_rate", 0.3),)), ("prefix_lm", 1.0, ()))


@pytest.fixture(params=objectives.PRETRAINING)
def objective(request):
    module = objectives.OBJECTIVES[request.param]
    config = fields_lib.replace(
        config_lib.Config(),
        {
            "objective.name": request.param,
            "objective.mixture": MIXED,
            "model.architecture": module.ARCHITECTURE or "encoder_decoder",
            "data.seq_len": 48,
        },
    )
    return objectives.make(config, IDS)


def make(objective, windows, index, epoch=0):
    return objective(*(w[index] for w in windows), RowNoise(3, index * 0 + epoch, index))


def windows_of(objective, num_rows=400):
    tokens, documents = make_windows(num_rows, objective.window_length)
    # One document a row, closed by the objective or by its own end token, then padding.
    return np.where(tokens < 5, 5, tokens), np.minimum(documents, 0)


def test_batches_have_the_shapes_that_were_promised(objective):
    windows = windows_of(objective)
    for num_rows in (400, 1, 0):
        batch = make(objective, windows, np.arange(num_rows))
        batch_lib.check(batch, objective.spec(num_rows))
        assert batch.keys() == objective.spec(1).keys()


def test_a_row_does_not_know_its_batch(objective):
    windows = windows_of(objective)
    whole = make(objective, windows, np.arange(400))
    some = np.array([17, 399, 3])
    for name, field in make(objective, windows, some).items():
        assert np.array_equal(field, whole[name][some]), name


def test_a_narrow_window_changes_nothing_but_the_padding(objective):
    (tokens, documents), width = windows_of(objective), objective.window_length - 11
    documents[:, width:] = -1
    tokens[:, width:] = 0
    index = np.arange(400)
    wide = make(objective, (tokens, documents), index)
    narrow = make(objective, (tokens[:, :width], documents[:, :width]), index)
    for name, field in narrow.items():
        there = field.shape[1]
        assert there <= wide[name].shape[1]
        assert np.array_equal(field, wide[name][:, :there]), name
        if name.endswith(("segment_ids", "weights")):
            assert not wide[name][:, there:].any(), name


def test_texts_take_no_more_places_than_announced(objective):
    windows = windows_of(objective, 2000)
    batch = make(objective, windows, np.arange(2000))
    lead = objective.window_length - objective.window_stride
    length = np.maximum((windows[1] >= 0).sum(axis=1) - lead, 0)
    places = objective.places(length)
    used = {"inputs": batch["segment_ids"] > 0, "targets": batch["weights"] > 0}
    used["enc_inputs"] = batch.get("enc_segment_ids", np.zeros((2000, 1))) > 0
    for name, most in places.items():
        assert (used[name].sum(axis=1)[length > 0] <= most[length > 0]).all(), name
        assert most.max() <= objective.spec(1)[name][0][1]


def test_padding_weighs_nothing(objective):
    shape = (3, objective.window_length)
    batch = objective(
        np.zeros(shape, np.int32), np.full(shape, -1), RowNoise(0, np.zeros(3), np.arange(3))
    )
    for name in ("weights", "content_weights", "segment_ids", "enc_segment_ids"):
        assert not batch.get(name, np.zeros(1)).any(), name


def test_content_is_part_of_what_is_predicted(objective):
    batch = make(objective, windows_of(objective), np.arange(400))
    assert 0 < batch["content_weights"].sum() <= batch["weights"].sum()
    assert (batch["content_weights"] <= batch["weights"]).all()
