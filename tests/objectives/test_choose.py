"""Choices and segments against the plainest way to say the same."""

import numpy as np
import pytest

from lmjax.objectives.choose import choose, partition
from lmjax.objectives.segments import segments


@pytest.mark.parametrize("values", [3, 10**6])  # with and without equal noise
@pytest.mark.parametrize("length", [0, 1, 2, 40])
def test_the_candidates_with_the_smallest_noise_are_chosen(length, values):
    rng = np.random.default_rng(length)
    noise = rng.integers(0, values, (50, length)) / values
    candidates = rng.random(noise.shape) < 0.8
    count = rng.integers(-1, candidates.sum(axis=1) + 1)
    size = int(count.max())
    chosen, used = choose(noise, candidates, count, size)
    assert chosen.shape == used.shape == (50, size)
    for row in range(50):
        order = [at for _, at in sorted(zip(noise[row], range(length), strict=True))]
        wanted = sorted([at for at in order if candidates[row, at]][: max(count[row], 0)])
        assert chosen[row].tolist() == wanted + [length] * (size - len(wanted))
        assert used[row].tolist() == [True] * len(wanted) + [False] * (size - len(wanted))


def test_a_partition_has_positive_parts():
    rng = np.random.default_rng(0)
    total = rng.integers(0, 30, 50)
    parts = np.minimum(rng.integers(1, 9, 50), total)  # 0 of an empty one
    split = partition(rng.random((50, 29)), total, parts, size=8)
    assert split.shape == (50, 8)
    assert (split.sum(axis=1) == total).all()
    assert ((split > 0) == (np.arange(8) < parts[:, None])).all()


def test_segments_count_the_runs_of_a_row():
    rng = np.random.default_rng(0)
    documents = np.sort(rng.integers(0, 8, (50, 12)), axis=1)
    documents[documents > 5] = -1  # padding
    segment_ids, positions = segments(documents)
    assert segment_ids.dtype == positions.dtype == np.int32
    for row, ids, places in zip(documents.tolist(), segment_ids, positions, strict=True):
        different = list(dict.fromkeys(d for d in row if d >= 0))
        assert ids.tolist() == [different.index(d) + 1 if d >= 0 else 0 for d in row]
        assert places.tolist() == [i - row.index(d) if d >= 0 else 0 for i, d in enumerate(row)]
