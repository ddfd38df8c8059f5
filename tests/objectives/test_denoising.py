import itertools
import random
from collections import Counter

import numpy as np
import pytest
from test_statistics import in_range, is_distributed, look_alike, noise

from lmjax.batch import Ids, Pieces
from lmjax.errors import UserError
from lmjax.objectives.denoising import Denoising

NUM_IDS = 2000
PAD, EOS, UNK, BOS, MASK = range(5)
# Ids by their last digit: 0 and 1 go on with a word, 2 is a full stop, 3 one of Chinese.
LAST = np.arange(NUM_IDS) % 10


def pieces():
    """The tables of such a vocabulary; special ids are words by themselves."""
    special = np.arange(NUM_IDS) < 5
    starts = np.where(special, 8, np.where(LAST < 2, 0, 2)).astype(np.int8)
    ends = np.where(special, 8, 0).astype(np.int8)
    sentence = np.where(LAST == 2, 1, np.where(LAST == 3, 2, 0)) * ~special
    space = np.where(special | (LAST < 2), 0, 1)
    return Pieces(ends, starts, sentence.astype(np.int8), space.astype(np.int8))


IDS = Ids(num_ids=NUM_IDS, num_rows=2048, pieces=pieces(), decoder_start=EOS)
OBJECTIVE = Denoising(seq_len=48, ids=IDS)


def words_of(text):
    """Groups of pieces; where a sentence begins, a word does."""
    words = []
    for token in text:
        before = words[-1][-1] if words else PAD
        if token >= 5 and LAST[token] < 2 and before >= 5 and LAST[before] != 3:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def sentences_of(text):
    """A full stop ends one where a word follows, a Chinese one always; a special id none."""
    sentences = [[]]
    for token, after in zip(text, [*text[1:], None], strict=True):
        sentences[-1].append(token)
        if token < 5 or after is None or after < 5:
            continue
        if LAST[token] == 3 or (LAST[token] == 2 and LAST[after] >= 2):
            sentences.append([])
    return sentences


def make_windows(num_rows, width, special=0.0, seed=0):
    """Texts of ids that are all different, every third one partly or wholly padding."""
    rng = np.random.default_rng(seed)
    tokens = np.argsort(rng.random((num_rows, NUM_IDS - 5)), axis=1)[:, :width] + 5
    tokens = np.where(rng.random(tokens.shape) < special, UNK, tokens).astype(np.int32)
    length = np.where(rng.random(num_rows) < 1 / 3, rng.integers(0, width, num_rows), width)
    real = np.arange(width) < length[:, None]
    return np.where(real, tokens, PAD), real.astype(np.int64) - 1


def read_and_written(batch, r):
    read = batch["enc_inputs"][r, batch["enc_segment_ids"][r] > 0].tolist()
    return read, batch["targets"][r, batch["segment_ids"][r] > 0].tolist()


@pytest.mark.parametrize("rate", [0.3, 0.15, 0.9])
def test_windows_keep_every_rule(rate):
    objective = Denoising(seq_len=48, ids=IDS, mask_rate=rate)
    num_rows = 10_000 if rate == 0.3 else 1000
    windows = make_windows(num_rows, objective.window_length)
    batch = objective(*windows, noise(num_rows))
    for r in range(num_rows):
        text = windows[0][r, windows[1][r] >= 0].tolist()
        read, written = read_and_written(batch, r)
        if not text:
            assert not read
            assert not written
            continue
        assert written == [BOS, *text, EOS]
        assert batch["inputs"][r, : len(written)].tolist() == [EOS, *written[:-1]]
        assert (read[0], read[-1]) == (BOS, EOS)
        kept = [token for token in read[1:-1] if token != MASK]
        masks = len(read) - 2 - len(kept)
        hidden = set(text) - set(kept)
        words = words_of(text)
        gone = [word for word in words if set(word) <= hidden]
        assert sum(map(len, gone)) == len(hidden)  # words go whole
        assert len(gone) == round(rate * len(words))
        assert len(read) <= len(written)
        assert (masks > 0) == bool(gone)
        assert (MASK, MASK) not in set(itertools.pairwise(read))
        content = batch["content_weights"][r] > 0
        assert set(batch["targets"][r, content].tolist()) == hidden
        # What is left of each sentence stands together and in order.
        left = [[t for t in sentence if t in set(kept)] for sentence in sentences_of(text)]
        left = {sentence[0]: sentence for sentence in left if sentence}
        rest = list(kept)
        while rest:
            sentence = left.pop(rest[0])
            assert rest[: len(sentence)] == sentence
            rest = rest[len(sentence) :]
        assert not left


def test_special_tokens_stay_and_texts_do_not_grow():
    windows = make_windows(3000, 46, special=0.2)
    batch = OBJECTIVE(*windows, noise(3000))
    for r in range(3000):
        text = windows[0][r, windows[1][r] >= 0].tolist()
        read, written = read_and_written(batch, r)
        if text:
            assert written == [BOS, *text, EOS]
            assert read.count(UNK) == text.count(UNK)
            assert len(read) <= len(written)
            assert not batch["content_weights"][r][batch["targets"][r] == UNK].any()
            kept = {token for token in read if token >= 5}
            hidden = [word for word in words_of(text) if word[0] >= 5 and not kept & set(word)]
            assert len(hidden) <= round(0.3 * len(words_of(text)))
            assert set(text) - {UNK} == kept | {token for word in hidden for token in word}


def poisson(rng, mean):
    """Knuth's way: how many uniform factors until the product falls below e^-mean."""
    product, count = rng.random(), 0
    while product > np.exp(-mean):
        product, count = product * rng.random(), count + 1
    return count


def infill_one(words, rate, mean, rng):
    """Lewis et al. 2020, text infilling: the words with some spans replaced by a mask each."""
    budget = round(rate * len(words))
    most, lengths = min(budget, len(words) - budget + 1), []
    while budget:
        length = budget if len(lengths) == most - 1 else min(poisson(rng, mean), budget)
        lengths.append(length)
        budget -= length
    rng.shuffle(lengths)
    stay = len(words) - sum(lengths)
    gaps = set(rng.sample(range(stay + 1), len(lengths)))
    read, words = [], list(words)
    for gap in range(stay + 1):
        if gap in gaps:
            read.append(MASK)
            del words[: lengths.pop()]
        read += words[:1]
        del words[:1]
    return read


@pytest.mark.parametrize(("num_words", "rate", "mean"), [(5, 0.4, 1.0), (9, 0.35, 3.0)])
def test_damage_is_that_of_the_paper(num_words, rate, mean):
    text = [10 * k + 4 for k in range(1, num_words + 1)]
    objective = Denoising(num_words + 2, IDS, rate, mean, permute_sentences=False)
    tokens = np.tile(np.array(text, np.int32), (20_000, 1))
    batch = objective(tokens, tokens * np.int64(0), noise(20_000))
    ours = Counter(tuple(read_and_written(batch, r)[0][1:-1]) for r in range(20_000))
    rng = random.Random(3)
    theirs = Counter(tuple(infill_one(text, rate, mean, rng)) for _ in range(20_000))
    common = sorted(set(ours) | set(theirs), key=lambda read: -ours[read] - theirs[read])
    number = {read: k for k, read in enumerate(common)}
    spread = lambda counts: [number[read] for read, n in counts.items() for _ in range(n)]
    assert look_alike(spread(ours), spread(theirs))
    assert len(number) > 15


def test_lengths_are_poisson():
    # So much text that neither the budget nor the number of spans matters to the first draws.
    drawn = OBJECTIVE._lengths(np.full(10_000, 500), np.full(10_000, 400), noise(10_000))[:, :20]
    assert (drawn >= 0).all()
    counts = np.bincount(drawn.ravel(), minlength=12)
    shares = np.diff(OBJECTIVE._poisson[:11], prepend=0)
    exact = [np.exp(-3) * 3.0**n / np.prod(np.arange(1, n + 1.0)) for n in range(11)]
    np.testing.assert_allclose(shares, exact, rtol=1e-9)
    assert is_distributed([*counts[:11], counts[11:].sum()], [*exact, 1 - sum(exact)])


def test_every_order_of_sentences_is_equally_likely():
    text = [14, 24, 32, 44, 52, 64, 63, 74]  # a b. c. d f。 g
    sentences = [[14, 24, 32], [44, 52], [64, 63], [74]]
    assert sentences_of(text) == sentences
    objective = Denoising(10, IDS, mask_rate=1e-9)
    tokens = np.tile(np.array(text, np.int32), (10_000, 1))
    batch = objective(tokens, tokens * np.int64(0), noise(10_000))
    counts = Counter(tuple(read_and_written(batch, r)[0][1:-1]) for r in range(10_000))
    chain = itertools.chain.from_iterable
    orders = [tuple(chain(order)) for order in itertools.permutations(sentences)]
    assert counts.keys() == set(orders)
    assert is_distributed([counts[order] for order in orders], np.ones(24))
    kept = Denoising(10, IDS, mask_rate=1e-9, permute_sentences=False)
    same = kept(tokens[:5], tokens[:5] * np.int64(0), noise(5))
    assert read_and_written(same, 0)[0][1:-1] == text


def test_every_place_is_as_likely_to_be_hidden():
    tokens = np.tile(np.arange(14, 474, 10, dtype=np.int32), (10_000, 1))  # 46 words
    objective = Denoising(48, IDS, permute_sentences=False)
    batch = objective(tokens, tokens * np.int64(0), noise(10_000))
    hidden = batch["content_weights"][:, 1:-1].sum(axis=0)
    assert hidden.sum() == 14 * 10_000
    # Ends are hidden less often than the middle, as spans begin anywhere: symmetric about it.
    left, right = hidden[:23], hidden[:22:-1]
    assert in_range(((left - right) ** 2 / (left + right)).sum(), 23)


def test_no_room_and_no_mask():
    with pytest.raises(UserError, match=r"data\.seq_len=3 leaves no room"):
        Denoising(3, IDS)
    with pytest.raises(UserError, match="needs a mask and a begin token"):
        Denoising(32, Ids(num_ids=90, num_rows=128, mask=None))
