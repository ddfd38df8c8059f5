import dataclasses

import numpy as np
import pytest

from lmjax import batch as batch_lib
from lmjax.batch import Ids
from lmjax.errors import UserError
from lmjax.noise import RowNoise
from lmjax.objectives.span_corruption import SpanCorruption, raw_length

IDS = Ids(num_ids=90, num_rows=256)
PAD, EOS = 0, 1
OBJECTIVE = SpanCorruption(seq_len=64, ids=IDS)


def make_windows(num_rows, width, seed=0):
    """Windows of text with end tokens in it, every third one partly or wholly padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, IDS.num_ids, (num_rows, width)).astype(np.int32)
    tokens[rng.random(tokens.shape) < 0.05] = EOS
    documents = np.cumsum(tokens == EOS, axis=1)
    length = np.where(rng.random(num_rows) < 1 / 3, rng.integers(0, width, num_rows), width)
    real = np.arange(width) < length[:, None]
    return np.where(real, tokens, PAD), np.where(real, documents, -1)


def make(objective, windows, epoch=0, index=None):
    index = np.arange(len(windows[0])) if index is None else index
    return objective(*(w[index] for w in windows), RowNoise(5, index * 0 + epoch, index))


def test_the_decoder_starts_as_its_family_does():
    objective = SpanCorruption(64, dataclasses.replace(IDS, decoder_start=EOS))
    windows = make_windows(50, objective.window_length)
    windows[1][0] = -1  # a row without text
    plain, other = make(OBJECTIVE, windows), make(objective, windows)
    real = plain["segment_ids"][:, 0] > 0
    assert real.any()
    assert not real[0]
    assert np.array_equal(other["inputs"][:, 0], np.where(real, EOS, PAD))
    for name in plain:
        assert np.array_equal(plain[name][:, 1:], other[name][:, 1:])


def split(ids):
    """Ids closed by eos -> (sentinels in order, what follows each of them)."""
    assert ids[-1] == EOS
    sentinels, parts = [], [[]]
    for token in ids[:-1]:
        if token >= IDS.num_ids:
            sentinels.append(token)
            parts.append([])
        else:
            parts[-1].append(token)
    return sentinels, parts


def check_row(row, text):
    """Every rule of a row of `text`, from the paper's figure 2 and section 3.1.4."""
    source = row["enc_inputs"][: sum(row["enc_segment_ids"])]
    targets = row["targets"][: sum(row["segment_ids"])]
    if len(text) < 2:
        assert not source
        assert not targets
    else:
        hidden = min(max(round(len(text) * 0.15), 1), len(text) - 1)
        spans = max(round(hidden / 3), 1)
        sentinels, plain = split(source)
        assert sentinels == [IDS.num_rows - 1 - k for k in range(spans)]
        same, cut_out = split(targets)
        assert same == sentinels
        assert plain.pop() == cut_out.pop(0) == []  # ends hidden, and targets start so
        assert all(plain)
        assert all(cut_out)
        assert sum(map(len, cut_out)) == hidden
        joined = [t for kept, gone in zip(plain, cut_out, strict=True) for t in kept + gone]
        assert joined == text
    for prefix, ids in (("enc_", source), ("", targets)):
        length = len(row[f"{prefix}inputs"])
        padding = [0] * (length - len(ids))
        assert row[f"{prefix}segment_ids"] == [1] * len(ids) + padding
        assert row[f"{prefix}positions"] == [*range(len(ids)), *padding]
    assert row["enc_inputs"][len(source) :] == [PAD] * (len(row["enc_inputs"]) - len(source))
    padding = [0] * (len(row["inputs"]) - len(targets))
    assert row["targets"] == targets + padding
    assert row["inputs"] == [PAD, *targets[:-1]][: len(targets)] + padding
    assert row["weights"] == [1.0] * len(targets) + padding
    assert row["content_weights"] == [float(EOS < t < IDS.num_ids) for t in targets] + padding


def test_ten_thousand_windows_keep_every_rule():
    windows = make_windows(10_000, OBJECTIVE.window_length)
    batch = make(OBJECTIVE, windows)
    batch_lib.check(batch, OBJECTIVE.spec(10_000))
    rows = {name: field.tolist() for name, field in batch.items()}
    lengths = (windows[1] >= 0).sum(axis=1)
    assert {0, 1, 2, OBJECTIVE.window_length} <= set(lengths.tolist())
    for r, length in enumerate(lengths):
        row = {name: field[r] for name, field in rows.items()}
        check_row(row, windows[0][r, :length].tolist())
    # A full window fills both sides to the last place.
    full = lengths == OBJECTIVE.window_length
    assert batch["enc_segment_ids"][full].all()
    assert batch["segment_ids"][full].all()


@pytest.mark.parametrize(
    ("seq_len", "raw", "targets"), [(512, 568, 114), (1024, 1137, 229), (256, 284, 58)]
)
def test_published_sizes(seq_len, raw, targets):
    objective = SpanCorruption(seq_len, Ids(num_ids=32_000, num_rows=32_128))
    assert objective.window_length == objective.window_stride == raw
    spec = objective.spec(3)
    assert spec["enc_inputs"] == ((3, seq_len), np.int32)
    assert spec["targets"] == ((3, targets), np.int32)


@pytest.mark.parametrize("mask_rate", [0.1, 0.15, 0.3, 0.5])
@pytest.mark.parametrize("mean", [2.0, 3.0, 3.5, 8.0, 64.0])
def test_lengths_are_those_of_the_t5_code(mask_rate, mean):
    """Against `random_spans_helper` of t5/data/preprocessors.py, written out again."""

    def lengths(tokens):
        hidden = round(tokens * mask_rate)
        spans = max(round(hidden / mean), 1)  # as the mask itself has
        return tokens - hidden + spans + 1, hidden + spans + 1

    for seq_len in (100, 128, 256, 400, 512, 1000):
        raw = seq_len
        while lengths(raw + 1)[0] <= seq_len:
            raw += 1
        raw -= mask_rate == 0.5 and lengths(raw)[1] > seq_len
        assert raw_length(seq_len, mask_rate, mean) == raw
        if round(raw * mask_rate / mean) <= 120:
            assert SpanCorruption(seq_len, IDS, mask_rate, mean).target_length == lengths(raw)[1]


@pytest.mark.parametrize(
    ("mask_rate", "mean"), [(0.15, 1.0), (0.5, 1.0), (0.5, 3.0), (0.9, 30.0), (0.01, 3.0)]
)
@pytest.mark.parametrize("seq_len", [3, 10, 41])
def test_odd_rates_still_give_texts_back(mask_rate, mean, seq_len):
    objective = SpanCorruption(seq_len, IDS, mask_rate, mean)
    windows = make_windows(300, objective.window_length)
    batch = make(objective, windows)
    batch_lib.check(batch, objective.spec(300))
    for r, length in enumerate((windows[1] >= 0).sum(axis=1)):
        if length < 2:
            assert not batch["segment_ids"][r].any()
            continue
        source = batch["enc_inputs"][r, : batch["enc_segment_ids"][r].sum()].tolist()
        targets = batch["targets"][r, : batch["segment_ids"][r].sum()].tolist()
        sentinels, plain = split(source)
        same, cut_out = split(targets)
        assert same == sentinels
        joined = [t for a, b in zip(plain, cut_out[1:], strict=False) for t in a + b]
        assert joined == windows[0][r, :length].tolist()


def test_a_row_is_the_same_in_any_batch_and_another_in_the_next_epoch():
    windows = make_windows(200, OBJECTIVE.window_length)
    whole = make(OBJECTIVE, windows)
    some = np.array([150, 3, 77])
    for name, field in make(OBJECTIVE, windows, index=some).items():
        assert np.array_equal(field, whole[name][some]), name
    again = make(OBJECTIVE, windows, epoch=1)
    full = whole["segment_ids"].all(axis=1)
    assert (whole["enc_inputs"] != again["enc_inputs"]).any(axis=1)[full].mean() > 0.99


def test_sentinels_that_run_out_and_spans_without_room():
    with pytest.raises(UserError, match=r"in 227 spans.* only 128 sentinels; shorten"):
        SpanCorruption(4096, IDS)
    # UL2's (50 %, 3) at 512 needs every one of them (Tay et al. 2022, table 1).
    assert SpanCorruption(512, IDS, 0.5, 3.0).num_spans == 128
    with pytest.raises(UserError, match=r"mask_rate=0\.9 .* stand between them \(\d+\)"):
        SpanCorruption(64, IDS, 0.9, 1.0)
    with pytest.raises(UserError, match=r"data\.seq_len=2 "):
        SpanCorruption(2, IDS)
