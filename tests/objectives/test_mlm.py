import numpy as np
import pytest

from lmjax import batch as batch_lib
from lmjax.batch import Ids
from lmjax.errors import UserError
from lmjax.noise import RowNoise
from lmjax.objectives.mlm import MaskedLM

IDS = Ids(num_ids=90, num_rows=128)
PAD, EOS, UNK, CLS, MASK = range(5)
OBJECTIVE = MaskedLM(seq_len=34, ids=IDS)


def make_windows(num_rows, width, seed=0):
    """Windows of many short documents, every third one partly or wholly padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, IDS.num_ids, (num_rows, width)).astype(np.int32)
    tokens[rng.random(tokens.shape) < 0.08] = EOS
    tokens[rng.random(tokens.shape) < 0.02] = UNK
    ends = np.cumsum(tokens == EOS, axis=1)
    documents = 7 + np.concatenate([ends[:, :1] * 0, ends[:, :-1]], axis=1)
    length = np.where(rng.random(num_rows) < 1 / 3, rng.integers(0, width, num_rows), width)
    real = np.arange(width) < length[:, None]
    return np.where(real, tokens, PAD), np.where(real, documents, -1)


def make(objective, windows, epoch=0, index=None):
    index = np.arange(len(windows[0])) if index is None else index
    return objective(*(w[index] for w in windows), RowNoise(5, index * 0 + epoch, index))


def test_ten_thousand_windows_keep_every_rule():
    windows = make_windows(10_000, OBJECTIVE.window_length)
    batch = make(OBJECTIVE, windows)
    batch_lib.check(batch, OBJECTIVE.spec(10_000))
    assert OBJECTIVE.num_predicted == 5  # round(0.15 x 32)
    rows = {name: field.tolist() for name, field in batch.items()}
    for r, (tokens, documents) in enumerate(zip(*(w.tolist() for w in windows), strict=True)):
        text = tokens[: sum(d >= 0 for d in documents)]
        inputs, at, targets = (rows[name][r] for name in ("inputs", "predict_at", "targets"))
        weights = rows["weights"][r]
        candidates = sum(t > MASK for t in text)
        count = max(1, round(0.15 * candidates)) if candidates else 0
        assert weights == [1.0] * count + [0.0] * (5 - count)
        assert at[count:] == targets[count:] == [0] * (5 - count)
        assert at[:count] == sorted(set(at[:count]))
        assert all(t > MASK for t in targets[:count])
        shown = [inputs[t] for t in at[:count]]
        assert all(token == MASK or MASK < token < IDS.num_ids for token in shown)
        assert rows["content_weights"][r][:count] == [float(token == MASK) for token in shown]
        # Putting the answers back gives the text between CLS and SEP.
        for t, target in zip(at[:count], targets[:count], strict=True):
            inputs[t] = target
        clean = [CLS, *text, EOS] if text else []
        assert inputs == clean + [PAD] * (34 - len(clean))
        # CLS counts with the first document, SEP with the last.
        owners = [documents[0], *documents[: len(text)], documents[len(text) - 1]] if text else []
        numbers = {d: n for n, d in enumerate(dict.fromkeys(owners), 1)}
        expected = [numbers[d] for d in owners] + [0] * (34 - len(owners))
        assert rows["segment_ids"][r] == expected
        assert rows["positions"][r] == [
            t - expected.index(segment) if segment else 0 for t, segment in enumerate(expected)
        ]


def test_a_row_is_the_same_in_any_batch_and_another_in_the_next_epoch():
    windows = make_windows(200, OBJECTIVE.window_length)
    whole = make(OBJECTIVE, windows)
    some = np.array([150, 3, 77])
    for name, field in make(OBJECTIVE, windows, index=some).items():
        assert np.array_equal(field, whole[name][some]), name
    again = make(OBJECTIVE, windows, epoch=1)
    full = np.flatnonzero(whole["weights"].all(axis=1))
    differ = (whole["predict_at"] != again["predict_at"]).any(axis=1)
    assert differ[full].mean() > 0.99
    assert np.array_equal(whole["weights"], again["weights"])


def test_padding_and_text_without_candidates_weigh_nothing():
    tokens = np.array([[PAD] * 6, [EOS] * 6, [9, PAD, PAD, PAD, PAD, PAD]], np.int32)
    documents = np.array([[-1] * 6, range(6), [0] + [-1] * 5])
    batch = make(MaskedLM(seq_len=8, ids=IDS), (tokens, documents))
    assert batch["weights"].tolist() == [[0.0], [0.0], [1.0]]
    assert batch["targets"].tolist() == [[0], [0], [9]]
    assert batch["inputs"][:2].tolist() == [[PAD] * 8, [CLS] + [EOS] * 7]
    assert batch["segment_ids"].tolist()[0] == [0] * 8
    assert batch["segment_ids"].tolist()[2] == [1, 1, 1, 0, 0, 0, 0, 0]


def test_published_size_and_shares():
    assert MaskedLM(seq_len=128, ids=IDS).num_predicted == 19
    assert MaskedLM(seq_len=512, ids=IDS).num_predicted == 76
    windows = make_windows(50, 62)
    only_masks = MaskedLM(64, IDS, mask_rate=0.3, mask_token_share=1.0, random_token_share=0.0)
    batch = make(only_masks, windows)
    assert np.array_equal(batch["weights"], batch["content_weights"])
    kept = MaskedLM(64, IDS, mask_token_share=0.0, random_token_share=0.0)
    assert not (make(kept, windows)["inputs"] == MASK).any()


def test_no_room_for_text():
    with pytest.raises(UserError, match=r"data\.seq_len=2 "):
        MaskedLM(seq_len=2, ids=IDS)
