import numpy as np
import pytest

from lmjax.data.mixture import PERIOD, Mixture, shares


@pytest.mark.parametrize("num_sources", [2, 3, 7, 25])
def test_no_prefix_is_a_row_away_from_its_shares(num_sources):
    rng = np.random.default_rng(num_sources)
    wanted = shares(rng.pareto(1, num_sources) + 1e-3)
    mixture = Mixture(wanted)
    rows = np.arange(PERIOD + 1000)
    source, number = mixture.locate(rows)
    counts = np.cumsum(source[:, None] == np.arange(num_sources), axis=0)
    share = counts[PERIOD - 1] / PERIOD
    assert np.abs(counts - np.outer(rows + 1, share)).max() < 1
    assert np.abs(share - wanted).max() < num_sources / PERIOD
    assert share.min() > 0
    # The rows of a source are numbered without a gap.
    assert np.array_equal(number, np.take_along_axis(counts, source[:, None], 1)[:, 0] - 1)
    for prefix in (0, 1, 999, PERIOD, PERIOD + 7, 5 * PERIOD + 3):
        whole, rest = divmod(prefix, PERIOD)
        expected = whole * counts[PERIOD - 1] + (counts[rest - 1] if rest else 0)
        assert np.array_equal(mixture.counts(prefix), expected)


def test_any_row_is_found_by_itself():
    mixture = Mixture((0.5, 0.3, 0.2))
    rows = np.array([10**12 + 5, 3, 3 * PERIOD])
    together = mixture.locate(rows)
    for i, row in enumerate(rows):
        assert [x[0] for x in mixture.locate(np.array([row]))] == [x[i] for x in together]


def test_one_source_has_all_rows():
    source, number = Mixture().locate(np.array([0, 10**15]))
    assert source.tolist() == [0, 0]
    assert number.tolist() == [0, 10**15]
    assert Mixture().counts(7).tolist() == [7]


def test_temperature_evens_out():
    assert shares([900, 100]) == pytest.approx((0.9, 0.1))
    assert shares([900, 100], temperature=2) == pytest.approx((0.75, 0.25))
    assert shares([900, 100], temperature=1e9) == pytest.approx((0.5, 0.5))
