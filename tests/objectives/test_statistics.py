"""What is hidden, and by what, against slow references written from the papers.

All thresholds are the 0.1 % and 99.9 % points of chi-square: too even is as wrong as too uneven.
"""

import dataclasses
import itertools
import random
from collections import Counter

import numpy as np

from lmjax.batch import Ids, Pieces
from lmjax.noise import RowNoise
from lmjax.objectives.mlm import MaskedLM
from lmjax.objectives.span_corruption import SpanCorruption

IDS = Ids(num_ids=50, num_rows=256)
EOS, CLS, MASK = 1, 3, 4
PLAIN = range(5, IDS.num_ids)


def in_range(statistic, freedom):
    """Whether a chi-square value is between its 0.1 % and 99.9 % points (Wilson, Hilferty 1931)."""
    low, high = (
        freedom * (1 - 2 / (9 * freedom) + z * (2 / (9 * freedom)) ** 0.5) ** 3
        for z in (-3.09, 3.09)
    )
    return low < statistic < high


def is_distributed(counts, shares):
    """Whether counts look drawn from shares."""
    counts, shares = np.asarray(counts, float), np.asarray(shares, float)
    expected = counts.sum() * shares / shares.sum()
    assert expected.min() > 5
    return in_range(((counts - expected) ** 2 / expected).sum(), len(counts) - 1)


def look_alike(ours, theirs):
    """Whether two equally large samples of integers look drawn from the same distribution."""
    assert len(ours) == len(theirs)
    a, b = Counter(ours), Counter(theirs)
    pairs = [(a[value], b[value]) for value in sorted(a.keys() | b.keys())]
    merged = [[0, 0]]
    for pair in pairs:  # neighbours together until there are enough of them
        merged[-1] = [merged[-1][0] + pair[0], merged[-1][1] + pair[1]]
        if sum(merged[-1]) > 40:
            merged.append([0, 0])
    merged[-2:] = [np.sum(merged[-2:], axis=0)]
    counts = np.array(merged, float)
    freedom = len(counts) - 1
    assert freedom >= 3
    return in_range(((counts[:, 0] - counts[:, 1]) ** 2 / counts.sum(axis=1)).sum(), freedom)


def are_independent(a, b):
    """Whether two equally large arrays of small integers look independent, item by item."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a.ravel(), b.ravel()), 1)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return in_range(((table - expected) ** 2 / expected).sum(), freedom)


def noise(num_rows):
    index = np.arange(num_rows)
    return RowNoise(11, index * 0, index)


def make_windows(num_rows, width):
    tokens = np.random.default_rng(2).integers(PLAIN[0], PLAIN[-1] + 1, (num_rows, width))
    return tokens.astype(np.int32), np.zeros((num_rows, width), np.int64)


def mask_one(text, rng):
    """BERT's masking of one text (Devlin et al. 2019, appendix A.2): row, hidden places."""
    row = [CLS, *text, EOS]
    places = [t for t, token in enumerate(row) if token in PLAIN]
    chosen = sorted(rng.sample(places, max(1, round(0.15 * len(places)))))
    for t in chosen:
        dice = rng.random()
        if dice < 0.8:
            row[t] = MASK
        elif dice < 0.9:
            row[t] = rng.choice(PLAIN)
    return row, chosen


def mask_words_of_one(text, continues, budget, rng):
    """Places of BERT's masking with --do_whole_word_mask (`create_masked_lm_predictions`)."""
    words = []
    for t, token in enumerate(text, 1):
        if token in continues and words:
            words[-1].append(t)
        else:
            words.append([t])
    rng.shuffle(words)
    chosen = []
    for word in words:
        if len(chosen) >= budget:
            break
        if len(chosen) + len(word) <= budget:
            chosen += word
    return sorted(chosen)


def whole_words(first_to_continue, seq_len, rate):
    """An objective that masks whole words; plain ids from a certain one on continue a word."""
    ids = np.arange(IDS.num_rows)
    starts = np.select([ids < PLAIN[0], ids < first_to_continue], [8, 2]).astype(np.int8)
    none = np.zeros_like(starts)
    known = Pieces(np.where(starts == 8, starts, none), starts, none, none)
    return MaskedLM(seq_len, dataclasses.replace(IDS, pieces=known), rate, whole_word=True)


def corrupt_one(length, rng):
    """Lengths of kept and of hidden spans of one text, as T5's `random_spans_noise_mask`."""

    def partition(items, parts):
        cuts = [1] * (parts - 1) + [0] * (items - parts)
        rng.shuffle(cuts)
        lengths = [1]
        for cut in cuts:
            if cut:
                lengths.append(1)
            else:
                lengths[-1] += 1
        return lengths

    hidden = round(length * 0.15)
    spans = round(hidden / 3)
    return partition(length - hidden, spans), partition(hidden, spans)


def test_every_choice_of_masked_places_is_equally_likely():
    objective = MaskedLM(seq_len=8, ids=IDS, mask_rate=1 / 3)  # 2 of 6: 15 choices
    batch = objective(*make_windows(30_000, 6), noise(30_000))
    counts = Counter(map(tuple, batch["predict_at"].tolist()))
    pairs = list(itertools.combinations(range(1, 7), 2))
    assert counts.keys() == set(pairs)
    assert is_distributed([counts[pair] for pair in pairs], np.ones(15))


def test_masks_are_those_of_the_paper():
    num_rows, width = 4000, 126
    tokens, documents = make_windows(num_rows, width)
    batch = MaskedLM(seq_len=128, ids=IDS)(tokens, documents, noise(num_rows))
    rng = random.Random(0)
    theirs = [mask_one(text, rng) for text in tokens.tolist()]
    # Places: one row hides 19 different ones, so counts vary less than independent draws would.
    share = 19 / width
    scale = (width - 1) / width / (num_rows * share * (1 - share))
    for places in (batch["predict_at"].ravel(), np.concatenate([t for _, t in theirs])):
        counts = np.bincount(places, minlength=128)[1:-1]
        assert in_range(((counts - num_rows * share) ** 2).sum() * scale, width - 1)
    # First, middle and last place of a row, against the reference.
    for slot in (0, 9, 18):
        ours = batch["predict_at"][:, slot].tolist()
        assert look_alike(ours, [chosen[slot] for _, chosen in theirs])
    # What stands there, per kind and in both.
    shown = np.take_along_axis(batch["inputs"], batch["predict_at"], axis=1)
    reference = np.array([[row[t] for t in chosen] for row, chosen in theirs])
    plain = 1 / len(PLAIN)
    for inputs, targets in ((shown, batch["targets"]), (reference, None)):
        if targets is None:
            targets = np.array([[tokens[r, t - 1] for t in c] for r, (_, c) in enumerate(theirs)])
        masked, kept = inputs == MASK, inputs == targets
        kinds = [masked.sum(), kept.sum(), (~masked & ~kept).sum()]
        # A random token may happen to be the one that it replaces.
        assert is_distributed(kinds, [0.8, 0.1 + 0.1 * plain, 0.1 * (1 - plain)])
        drawn = np.bincount(inputs[~masked & ~kept], minlength=IDS.num_ids)
        assert not drawn[: PLAIN[0]].any()
        assert is_distributed(drawn[PLAIN[0] :], np.ones(len(PLAIN)))
    # The kind of one piece says nothing of its neighbour's, nor of which places were chosen.
    kinds = np.where(shown == MASK, 0, np.where(shown == batch["targets"], 1, 2))
    assert are_independent(kinds[:, :-1], kinds[:, 1:])
    chosen = np.zeros((num_rows, 128), int)
    np.put_along_axis(chosen, batch["predict_at"], 1, axis=1)
    assert are_independent(chosen[:, 1:19], kinds[:, 1:])
    assert are_independent(batch["predict_at"] // 16, kinds)


def test_whole_words_are_chosen_in_every_order():
    # Words of 1, 2, 3 and 1 pieces, 3 to hide: what each order leaves room for.
    first_to_continue = 30
    text = [5, 6, 31, 7, 31, 32, 8]
    spans = [(1,), (2, 3), (4, 5, 6), (7,)]
    shares = Counter()
    for order in itertools.permutations(spans):
        hidden = []
        for span in order:
            hidden += span if len(hidden) + len(span) <= 3 else ()
        shares[tuple(sorted(hidden))] += 1
    num_rows = 20_000
    objective = whole_words(first_to_continue, 9, 0.4)
    tokens = np.tile(np.array(text, np.int32), (num_rows, 1))
    batch = objective(tokens, np.zeros(tokens.shape, np.int64), noise(num_rows))
    used = batch["weights"].sum(axis=1).astype(int)
    counts = Counter(
        tuple(at[:n]) for at, n in zip(batch["predict_at"].tolist(), used, strict=True)
    )
    assert counts.keys() == shares.keys()
    assert is_distributed([counts[k] for k in shares], list(shares.values()))


def test_whole_words_are_those_of_the_bert_code():
    num_rows, width, first_to_continue = 4000, 126, 12  # words of 6 pieces on average
    tokens, documents = make_windows(num_rows, width)
    batch = whole_words(first_to_continue, 128, 0.15)(tokens, documents, noise(num_rows))
    rng, continues = random.Random(0), range(first_to_continue, IDS.num_ids)
    theirs = [mask_words_of_one(text, continues, 19, rng) for text in tokens.tolist()]
    used = batch["weights"].sum(axis=1).astype(int)
    ours = [at[:n] for at, n in zip(batch["predict_at"].tolist(), used, strict=True)]
    for of_row in (
        len,
        lambda chosen: chosen[0],
        lambda chosen: chosen[len(chosen) // 2],
        lambda chosen: chosen[-1],
        lambda chosen: sum(b - a > 1 for a, b in itertools.pairwise(chosen)),
        lambda chosen: max(b - a for a, b in itertools.pairwise(chosen)),
    ):
        assert look_alike(list(map(of_row, ours)), list(map(of_row, theirs)))
    # Each piece of a word is replaced by itself.
    shown = np.take_along_axis(batch["inputs"], batch["predict_at"], axis=1)
    kinds = np.where(shown == MASK, 0, np.where(shown == batch["targets"], 1, 2))
    plain = 1 / len(PLAIN)
    counts = np.bincount(kinds[batch["weights"] > 0])
    assert is_distributed(counts, [0.8, 0.1 + 0.1 * plain, 0.1 * (1 - plain)])
    kinds = kinds[used >= 15, :15]
    assert are_independent(kinds[:, :-1], kinds[:, 1:])


def test_every_span_mask_is_equally_likely():
    # 6 of 20 tokens hidden in 2 spans: 5 partitions of the 6, 13 of the 14 that stay.
    objective = SpanCorruption(seq_len=17, ids=IDS, mask_rate=0.3)
    assert (objective.window_length, objective.num_spans, objective.target_length) == (20, 2, 9)
    batch = objective(*make_windows(26_000, 20), noise(26_000))
    first = IDS.num_rows - 1
    kept = (batch["enc_inputs"] == first).argmax(axis=1)
    gone = (batch["targets"] == first - 1).argmax(axis=1) - 1
    counts = Counter(zip(kept.tolist(), gone.tolist(), strict=True))
    masks = list(itertools.product(range(1, 14), range(1, 6)))
    assert counts.keys() == set(masks)
    assert is_distributed([counts[mask] for mask in masks], np.ones(65))


def test_spans_are_those_of_the_t5_code():
    num_rows, length, spans = 4000, 568, 28
    objective = SpanCorruption(seq_len=512, ids=IDS)
    batch = objective(*make_windows(num_rows, length), noise(num_rows))

    def lengths(ids):
        """Lengths of what lies between sentinels, [rows, spans + 1]."""
        at = np.nonzero(ids >= IDS.num_ids)[1].reshape(num_rows, spans)
        end = np.full((num_rows, 1), ids.shape[1] - 1)
        return np.diff(at, axis=1, prepend=-1, append=end) - 1

    kept = lengths(batch["enc_inputs"])[:, :-1]
    gone = lengths(batch["targets"])[:, 1:]
    rng = random.Random(0)
    theirs = [corrupt_one(length, rng) for _ in range(num_rows)]
    # One value per row and test, so that the values are independent.
    for ours, which in ((kept, 0), (gone, 1)):
        for k in (0, 13, 27):
            assert look_alike(ours[:, k].tolist(), [t[which][k] for t in theirs])
        middle = ours[:, :14].sum(axis=1).tolist()
        assert look_alike(middle, [sum(t[which][:14]) for t in theirs])
        longest = ours.max(axis=1).tolist()
        assert look_alike(longest, [max(t[which]) for t in theirs])
    starts = (kept + gone)[:, :14].sum(axis=1).tolist()  # where the 15th kept span starts
    assert look_alike(starts, [sum(a[:14]) + sum(b[:14]) for a, b in theirs])
