"""What is drawn against the probabilities of it; what is refused."""

import jax
import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.infer import sampling
from lmjax.infer.sampling import Sampling

VOCAB, DRAWS = 24, 40_000


def logits():
    return np.random.default_rng(0).normal(size=VOCAB).astype(np.float32) * 1.5


def expected(how):
    """Probabilities of the tokens, float64 [V], in plain numpy."""
    p = np.exp(logits().astype(np.float64) / how.temperature)
    order = np.argsort(-p)
    if how.top_k is not None:
        p[order[how.top_k :]] = 0
    p /= p.sum()
    if how.top_p is not None:
        needed = int(np.searchsorted(np.cumsum(p[order]), how.top_p)) + 1
        p[order[needed:]] = 0
    return p / p.sum()


def drawn(how, row, seed=0):
    """Ids of many prompts with the same logits."""
    number_B2 = np.stack([np.arange(DRAWS), np.zeros(DRAWS)], axis=1).astype(np.uint32)

    @jax.jit
    def draw(seed, step):
        rows_BV = jax.numpy.broadcast_to(row, (DRAWS, VOCAB))
        return sampling.choose(how, rows_BV, sampling.row_keys(seed, number_B2), step)

    return lambda step: np.asarray(draw(np.uint32(seed), np.int32(step)))


def is_likely(counts, p):
    """Chi-square within four standard deviations of what it is on average."""
    assert counts[p == 0].sum() == 0
    some = p * counts.sum() >= 5
    counts = np.append(counts[some], counts[~some].sum())
    wanted = np.append(p[some], p[~some].sum()) * counts.sum()
    chi, degrees = ((counts - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum(), some.sum() - 1
    print(f"chi-square {chi:.1f} of {degrees} degrees of freedom")
    return abs(chi - degrees) < 4 * np.sqrt(2 * degrees) + 1


WAYS = [
    Sampling(1.0),
    Sampling(0.7),
    Sampling(2.0, top_k=5),
    Sampling(1.0, top_p=0.8),
    Sampling(0.7, top_k=9, top_p=0.9),
]


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_frequencies_are_the_probabilities(how):
    draw = drawn(how, logits())
    counts = [np.bincount(draw(step), minlength=VOCAB) for step in range(2)]
    p = expected(how)
    assert is_likely(counts[0], p)
    assert is_likely(counts[1], p)
    # One step tells nothing of the next, one prompt nothing of its neighbour.
    pairs = np.bincount(draw(0) * VOCAB + draw(1), minlength=VOCAB**2)
    assert is_likely(pairs, np.outer(p, p).ravel())
    first = draw(0)
    assert is_likely(
        np.bincount(first[:-1:2] * VOCAB + first[1::2], minlength=VOCAB**2), np.outer(p, p).ravel()
    )


def test_a_wrong_distribution_is_seen():
    counts = np.bincount(drawn(Sampling(1.0), logits())(0), minlength=VOCAB)
    assert not is_likely(counts, expected(Sampling(0.95)))


def test_at_temperature_0_it_is_the_likeliest():
    row = np.array([[1.0, 3.0, 3.0, -np.inf], [0.0, -1.0, -2.0, 5.0]], np.float32)
    assert sampling.choose(Sampling(), row, None, 0).tolist() == [1, 3]


@pytest.mark.parametrize("temperature", [1e-30, 1e-5])
def test_no_temperature_is_too_cold(temperature):
    row = np.array([[100.0, 99.0, -np.inf]], np.float32)
    keys = sampling.row_keys(np.uint32(0), np.zeros((1, 2), np.uint32))
    for how in (Sampling(temperature), Sampling(temperature, top_k=2, top_p=0.5)):
        assert sampling.choose(how, row, keys, 0).tolist() == [0]


def test_equally_likely_tokens_stay_or_go_together():
    row = np.log(np.array([[0.4, 0.2, 0.2, 0.2]], np.float32))
    stays = lambda how: np.isfinite(sampling.narrowed(how, row))[0].tolist()
    assert stays(Sampling(1.0, top_k=1)) == [True, False, False, False]
    assert stays(Sampling(1.0, top_k=2)) == [True] * 4
    assert stays(Sampling(1.0, top_p=0.3)) == [True, False, False, False]
    assert stays(Sampling(1.0, top_p=0.5)) == [True] * 4
    assert stays(Sampling(1.0, top_k=9, top_p=1.0)) == [True] * 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1 is impossible; give 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": 1.0, "top_k": 0}, "top_k=0 leaves no token"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p=0.0 is no share"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p=1.5 is no share"),
        ({"top_k": 5}, "at temperature 0 nothing is; give a temperature"),
        ({"top_p": 0.5}, "at temperature 0 nothing is"),
    ],
)
def test_impossible_numbers(fields, message):
    with pytest.raises(UserError, match=message):
        Sampling(**fields)
