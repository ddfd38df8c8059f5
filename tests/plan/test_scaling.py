"""Fits of loss against size and tokens: right about ladders whose truth is known."""

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.plan import scaling
from lmjax.plan.scaling import Points

# As a ladder has them: four sizes, the smaller two with three lengths.
SIZES = np.array([57e3, 150e3, 336e3, 793e3])
PARAMS = np.repeat(SIZES, [3, 3, 2, 2])
TOKENS = 1e6 * np.array([1, 1.4, 2, 1, 1.4, 2, 1, 2, 1, 2])
LARGER = (np.array(2.42e6), np.array(2e6))
FAR = (np.array(2e7), np.array(2e8))


def truth(rng):
    """A form within what has been published: a function of parameters and tokens."""
    e, a, b = rng.uniform(1, 3), rng.uniform(0.2, 1.5), rng.uniform(0.3, 1.5)
    alpha, beta = rng.uniform(0.15, 0.7, 2)
    return lambda n, d: e + a * (n / 3e5) ** -alpha + b * (d / 1.4e6) ** -beta


@pytest.fixture(scope="module")
def studied():
    """Of 200 ladders with each noise: (truth, observation, interval) of a larger rung, and far."""
    rng = np.random.default_rng(0)
    found = {}
    for noise in (0.005, 0.02, 0.05):
        rows = []
        for seed in range(200):
            form = truth(rng)
            losses = form(PARAMS, TOKENS) + noise * rng.standard_normal(len(PARAMS))
            fit = scaling.fit(Points(PARAMS, TOKENS, losses), seed)
            seen = form(*LARGER) + noise * rng.standard_normal()
            of_run, far = fit.interval(*LARGER, of_run=True), fit.interval(*FAR)
            rows.append((seen, *of_run, form(*FAR), *far, np.ptp(losses)))
        found[noise] = np.array(rows).T
    return found


def test_a_larger_run_lies_in_its_interval_as_often_as_it_says(studied):
    """Of 600 ladders; of 200 with one noise a share of 90 % comes out 7 % lower or higher."""
    shares = []
    for seen, low, middle, high, *_ in studied.values():
        shares.append(np.mean((low <= seen) & (seen <= high)))
        assert 0.8 <= shares[-1] <= 0.97
        assert 0.38 <= np.mean(seen < middle) <= 0.62  # neither too hopeful nor too gloomy
    assert 0.85 <= np.mean(shares) <= 0.95


@pytest.mark.parametrize(("noise", "share"), [(0.005, 0.06), (0.02, 0.2), (0.05, 0.4)])
def test_the_interval_is_of_use(studied, noise, share):
    low, high, spread = studied[noise][1], studied[noise][3], studied[noise][8]
    assert np.median((high - low) / spread) < share
    assert np.median(high - low) > 2 * noise  # no run is surer than runs are


@pytest.mark.parametrize("noise", [0.005, 0.02, 0.05])
def test_far_from_the_ladder_the_form_still_lies_in_its_interval(studied, noise):
    *_, form, low, _, high, spread = studied[noise]
    assert 0.8 <= np.mean((low <= form) & (form <= high)) <= 0.99
    assert np.median((high - low) / spread) > np.median(
        (studied[noise][3] - studied[noise][1]) / spread
    )


def test_exact_losses_give_their_form_back():
    form = lambda n, d: 1.8 + 0.9 * (n / 3e5) ** -0.34 + 0.7 * (d / 1.4e6) ** -0.32
    fit = scaling.fit(Points(PARAMS, TOKENS, form(PARAMS, TOKENS)))
    low, middle, high = fit.interval(*LARGER)
    assert low < form(*LARGER) < high
    assert middle == pytest.approx(form(*LARGER), abs=0.01)
    assert high - low < 0.03
    small, short = fit.parts(*LARGER)
    assert np.median(short) == pytest.approx(0.7 * (2 / 1.4) ** -0.32, rel=0.5)
    assert (small > 0).all()


def test_the_same_losses_and_seed_give_the_same_fit():
    losses = truth(np.random.default_rng(3))(PARAMS, TOKENS)
    fits = [scaling.fit(Points(PARAMS, TOKENS, losses), seed) for seed in (0, 0, 1)]
    intervals = [fit.interval(*LARGER, of_run=True) for fit in fits]
    assert (intervals[0] == intervals[1]).all()
    np.testing.assert_allclose(intervals[0], intervals[2], atol=0.005)


def test_losses_of_many_models_at_a_time():
    losses = truth(np.random.default_rng(3))(PARAMS, TOKENS)
    fit = scaling.fit(Points(PARAMS, TOKENS, losses))
    whole = fit.losses(SIZES[:, None], np.array([1e6, 2e6]))
    assert whole.shape == (len(fit.noise), 4, 2)
    np.testing.assert_allclose(whole[:, 2, 1], fit.losses(SIZES[2], np.array(2e6)))
    assert (np.diff(whole, axis=1) < 0).all()
    assert (np.diff(whole, axis=2) < 0).all()


def test_losses_that_rise_with_size_are_no_ladder():
    with pytest.raises(UserError, match=r"do not fall with size and tokens.*; train longer rungs"):
        scaling.fit(Points(PARAMS, TOKENS, 3 + 0.5 * np.log(PARAMS * TOKENS / 1e11)))
