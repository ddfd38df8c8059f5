import dataclasses

import numpy as np
import pytest
from test_mlm import EOS, IDS, PAD, make, make_windows
from test_statistics import are_independent, is_distributed

from lmjax import config as config_lib
from lmjax import fields as fields_lib
from lmjax import objectives
from lmjax.batch import Ids
from lmjax.errors import UserError
from lmjax.noise import RowNoise
from lmjax.objectives import ul2

ROOM = dataclasses.replace(IDS, num_rows=256)
MODES = [ROOM.num_rows - 1 - 128 - k for k in range(3)]


def objective(name, ids=ROOM, **fields):
    fields = {f"objective.{field}": value for field, value in fields.items()}
    changes = {"objective.name": name, "data.seq_len": 64, "model.architecture": "encoder_decoder"}
    return objectives.make(fields_lib.replace(config_lib.Config(), changes | fields), ids)


def split(ids):
    """Ids closed by eos -> (sentinels in order, what stands around them)."""
    assert ids[-1] == EOS
    sentinels, around = [], [[]]
    for token in ids[:-1]:
        if token >= ROOM.num_ids:
            sentinels.append(token)
            around.append([])
        else:
            around[-1].append(token)
    return sentinels, around


def kind_of(source, target, text):
    """The denoiser of table 1 that made a row, told from the row alone; checks all of it."""
    mode, *source = source
    sentinels, plain = split(source)
    same, hidden = split(target)
    assert same == sentinels == [ROOM.num_rows - 1 - k for k in range(len(sentinels))]
    if mode == MODES[1]:
        assert not sentinels
        assert plain[0] + hidden[0] == text
        assert len(hidden[0]) == round(0.25 * len(text))
        return "S"
    assert [t for a, b in zip(plain, hidden[1:], strict=False) for t in a + b] == text
    count = sum(map(len, hidden))
    for name, mean, rate in ul2.SPANS:
        wanted = round(rate * len(text))
        spans = max(round(wanted / mean), 1)
        if (MODES["RSX".index(name)], count, len(sentinels)) == (mode, wanted, spans):
            return name, mean, rate
    raise AssertionError(f"{count} hidden in {len(sentinels)} spans, mode {mode}")


def test_ul2_rows_are_those_of_table_1_in_equal_shares():
    mixed = objective("ul2")
    tokens = np.random.default_rng(0).integers(5, 90, (10_000, mixed.window_length))
    windows = tokens.astype(np.int32), np.zeros(tokens.shape, np.int64)
    batch = make(mixed, windows)
    kinds = []
    for r, text in enumerate(tokens.tolist()):
        source = batch["enc_inputs"][r, batch["enc_segment_ids"][r] > 0].tolist()
        target = batch["targets"][r, batch["segment_ids"][r] > 0].tolist()
        kinds.append(str(kind_of(source, target, text)))
        assert batch["enc_positions"][r, : len(source)].tolist() == list(range(len(source)))
    names, index = np.unique(kinds, return_inverse=True)
    assert len(names) == 7
    assert is_distributed(np.bincount(index), np.ones(7))
    assert are_independent(index[:-1], index[1:])
    again = make(mixed, windows, epoch=1)["enc_inputs"][:, 0]
    assert (again != batch["enc_inputs"][:, 0]).mean() > 0.5


def test_ul2_takes_as_much_text_as_its_fullest_denoiser_lets_in():
    mixed = objective("ul2")
    windows = make_windows(2000, mixed.window_length)
    batch = make(mixed, (windows[0], np.minimum(windows[1], 0)))
    assert batch["enc_segment_ids"].sum(axis=1).max() == 64
    assert batch["segment_ids"].sum(axis=1).max() == batch["targets"].shape[1]
    empty = (windows[1] >= 0).sum(axis=1) < 2
    assert empty.any()
    assert (batch["enc_inputs"][empty] == PAD).all()  # no mode either


def test_ul2_of_a_tokenizer_with_sentinels_of_its_own():
    ids = Ids(num_ids=200, num_rows=256, first_sentinel=199, num_sentinels=100)
    batch = make(objective("ul2", ids), make_windows(300, 60))
    modes = set(batch["enc_inputs"][:, 0].tolist()) - {PAD}
    assert modes == {199 - 97, 199 - 98, 199 - 99}
    few = dataclasses.replace(ids, num_sentinels=12)
    with pytest.raises(UserError, match="only 9 sentinels"):
        objective("ul2", few)


def test_parts_come_by_weight():
    parts = (
        ("span_corruption", 3.0, (("mask_rate", 0.3), ("mean_span_length", 2.0))),
        ("prefix_lm", 1.0, ()),
    )
    mixed = objective("mixture", mixture=parts)
    single = [part.objective for part in mixed.parts]
    windows = make_windows(10_000, mixed.window_length)
    windows = windows[0], np.minimum(windows[1], 0)
    batch, alone = make(mixed, windows), [make(one, windows) for one in single]
    real = (windows[1] >= 0).sum(axis=1) > 1
    has_sentinel = (batch["enc_inputs"] >= IDS.num_ids).any(axis=1)
    part = np.where(has_sentinel, 0, 1)
    assert is_distributed(np.bincount(part[real]), [3, 1])
    for k in (0, 1):
        rows = np.flatnonzero(real & (part == k))
        for name, field in alone[k].items():
            length = min(field.shape[1], batch[name].shape[1])
            assert np.array_equal(batch[name][rows, :length], field[rows, :length]), name
            assert not batch[name][rows, length:].any() or name.endswith("inputs")


def test_what_does_not_mix():
    with pytest.raises(UserError, match=r"mixture is empty; give it parts"):
        objective("mixture")
    with pytest.raises(UserError, match=r"'prefix_lm' has weight 0\.0; give one above 0"):
        objective("mixture", mixture=(("prefix_lm", 0.0, ()),))
    with pytest.raises(UserError, match=r"unknown config field.*mask_rate"):
        objective("mixture", mixture=(("prefix_lm", 1.0, (("mask_rat", 0.1),)),))
    with pytest.raises(UserError, match="'clm' trains models of"):
        objective("mixture", mixture=(("clm", 1.0, ()),))
    with pytest.raises(UserError, match="a mixture among its parts"):
        objective("mixture", mixture=(("ul2", 1.0, ()), ("prefix_lm", 1.0, ())))
    encoder = {"objective.name": "mixture", "model.architecture": "encoder"}
    both = (("mlm", 1.0, ()), ("mlm", 1.0, (("mask_rate", 0.4),)))
    config = fields_lib.replace(config_lib.Config(), encoder | {"objective.mixture": both})
    mixed = objectives.make(config, IDS)
    nothing = np.zeros((1, mixed.window_length), np.int32)
    batch = mixed(nothing + 9, nothing * np.int64(1), RowNoise(0, np.zeros(1), np.zeros(1)))
    assert batch["targets"].shape == mixed.spec(1)["targets"][0]
