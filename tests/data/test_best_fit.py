import numpy as np
import pytest

from lmjax.data.best_fit import best_fit


def places_left(sizes, capacity):
    """Best-fit decreasing as one would do it by hand, one item at a time."""
    left = []
    for size in sorted(sizes, reverse=True):
        fitting = [(room, b) for b, room in enumerate(left) if room >= size]
        if not fitting:
            left.append(capacity)
            fitting = [(capacity, len(left) - 1)]
        left[min(fitting)[1]] -= size
    return sorted(left)


def test_bins_are_those_of_the_slow_way():
    rng = np.random.default_rng(0)
    for _ in range(200):
        capacity = int(rng.integers(1, 60))
        sizes = rng.integers(1, capacity + 1, int(rng.integers(0, 80)))
        bins = best_fit(sizes, capacity)
        assert len(bins) == len(sizes)
        used = np.bincount(bins, sizes)
        assert sorted(capacity - used) == places_left(sizes.tolist(), capacity)


def test_a_million_items_fill_their_bins():
    rng = np.random.default_rng(1)
    sizes = np.clip(rng.lognormal(5, 1.2, 1 << 20), 1, 512).astype(int)
    used = np.bincount(best_fit(sizes, 512), sizes)
    assert used.max() <= 512
    assert used.sum() == sizes.sum()
    assert used.mean() > 0.999 * 512


@pytest.mark.parametrize("sizes", [[0], [11]])
def test_what_fits_no_bin(sizes):
    with pytest.raises(ValueError, match="bins of 10"):
        best_fit(np.array(sizes), 10)
