"""Whole-word masking: the pieces of a word are hidden together."""

import pickle

import numpy as np
import pytest
from test_mlm import CLS, EOS, IDS, MASK, PAD, make, make_windows

from lmjax import batch as batch_lib
from lmjax import config as config_lib
from lmjax import fields as fields_lib
from lmjax import objectives
from lmjax.batch import Ids, Pieces
from lmjax.objectives import choose
from lmjax.objectives.mlm import MaskedLM

FIRST_TO_CONTINUE = 40  # ids from here on continue a word, but never a special id


def pieces(first_to_continue=FIRST_TO_CONTINUE):
    ids = np.arange(IDS.num_rows)
    votes = np.where(ids < 5, 8, np.where(ids < first_to_continue, 2, 0)).astype(np.int8)
    return Pieces(np.where(ids < 5, 8, 0).astype(np.int8), votes, votes * 0, votes * 0)


def objective(seq_len=34, known=None, **rates):
    known = pieces() if known is None else known
    ids = Ids(num_ids=IDS.num_ids, num_rows=IDS.num_rows, pieces=known)
    return MaskedLM(seq_len, ids, whole_word=True, **rates)


def words_of(text, documents):
    """Positions in the row of each word's pieces; CLS stands before the text."""
    words = []
    for i, (token, document) in enumerate(zip(text, documents, strict=True)):
        if token <= MASK:
            continue
        continues = i > 0 and documents[i - 1] == document and text[i - 1] > MASK
        if token >= FIRST_TO_CONTINUE and continues:
            words[-1].append(i + 1)
        else:
            words.append([i + 1])
    return words


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_ten_thousand_windows_hide_whole_words(rate):
    masked = objective(mask_rate=rate)
    windows = make_windows(10_000, masked.window_length)
    batch = make(masked, windows)
    batch_lib.check(batch, masked.spec(10_000))
    rows = {name: field.tolist() for name, field in batch.items()}
    skipped, piecewise, kinds = 0, 0, set()
    for r, (tokens, documents) in enumerate(zip(*(w.tolist() for w in windows), strict=True)):
        text = tokens[: sum(d >= 0 for d in documents)]
        words = words_of(text, documents[: len(text)])
        candidates = sum(map(len, words))
        budget = max(1, round(rate * candidates)) if candidates else 0
        used = int(sum(rows["weights"][r]))
        inputs, at, targets = (rows[name][r] for name in ("inputs", "predict_at", "targets"))
        assert at[used:] == targets[used:] == [0] * (masked.num_predicted - used)
        hidden = at[:used]
        assert hidden == sorted(set(hidden))
        assert used <= budget
        if words and min(map(len, words)) > budget:  # piece by piece
            assert used == budget
            piecewise += 1
        else:
            chosen = [word for word in words if word[0] in hidden]
            assert sorted(t for word in chosen for t in word) == hidden
            rest = [len(word) for word in words if word not in chosen]
            assert all(size > budget - used for size in rest)
            skipped += used < budget
            assert (used > 0) == (candidates > 0)
            kinds |= {tuple(inputs[t] == MASK for t in word) for word in chosen if len(word) == 2}
        for t, target in zip(hidden, targets, strict=False):
            inputs[t] = target
        clean = [CLS, *text, EOS] if text else []
        assert inputs == clean + [PAD] * (34 - len(clean))
    assert skipped > 100
    assert piecewise > 20
    assert len(kinds) == 4  # what stands in the place of a piece is its own matter


def test_a_row_is_the_same_in_any_batch_and_in_another_process():
    masked = objective()
    windows = make_windows(300, masked.window_length)
    whole = make(masked, windows)
    some = np.array([250, 3, 77])
    again = make(pickle.loads(pickle.dumps(masked)), windows, index=some)
    for name, field in again.items():
        assert np.array_equal(field, whole[name][some]), name


def test_words_of_one_piece_are_as_likely_as_pieces():
    known = pieces(first_to_continue=IDS.num_rows)
    windows = make_windows(500, 32)
    for name, field in make(objective(known=known), windows).items():
        if name not in ("inputs", "predict_at", "targets", "content_weights"):
            assert np.array_equal(field, make(MaskedLM(34, IDS), windows)[name]), name


def test_padding_and_texts_of_one_word():
    tokens = np.array([[PAD] * 6, [EOS] * 6, [9, 50, 50, 50, 50, 50]], np.int32)
    documents = np.array([[-1] * 6, range(6), [0] * 6])
    batch = make(objective(8, mask_rate=0.4), (tokens, documents))
    assert batch["weights"].tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    empty = make(objective(8), (tokens[:0], documents[:0]))
    assert empty["inputs"].shape == (0, 8)


def test_fill_is_greedy_in_random_order():
    rng = np.random.default_rng(0)
    sizes = rng.choice([0, 1, 1, 2, 3, 5, 8, 13], (3000, 30))
    budget = rng.integers(0, 40, 3000)
    noise = rng.random(sizes.shape)
    taken = choose.fill(noise, sizes, budget)
    for row in range(3000):
        left = budget[row]
        for item in np.argsort(noise[row]):
            fits = 0 < sizes[row, item] <= left
            assert taken[row, item] == fits
            left -= sizes[row, item] * fits


def test_the_config_asks_for_words_and_for_another_rate_in_evaluation():
    fields = {"objective.name": "mlm", "model.architecture": "encoder", "data.seq_len": 102}
    config = fields_lib.replace(config_lib.Config(), fields)
    assert not objectives.needs_pieces(config)
    assert not objectives.needs_pieces(config_lib.Config())
    plain = objectives.make(config, IDS)
    assert (plain.whole_word, plain.num_predicted) == (False, 15)
    assert objectives.make(config, IDS, evaluation=True) == plain
    rates = {"objective.mask_rate": 0.3, "objective.eval_mask_rate": 0.15}
    config = fields_lib.replace(config, rates | {"objective.whole_word": True})
    assert objectives.needs_pieces(config)
    train, held_out = (objectives.make(config, IDS, evaluation=e) for e in (False, True))
    assert train.whole_word
    assert held_out.whole_word
    assert (train.num_predicted, held_out.num_predicted) == (30, 15)
