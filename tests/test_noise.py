import numpy as np
import pytest

from lmjax import noise


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000, 65_537])
def test_permute_is_a_permutation(size):
    image = noise.permute(np.arange(size), size, 7, 3)
    assert sorted(image) == list(range(size))


def test_permute_differs_by_key_and_answers_any_subset():
    whole = noise.permute(np.arange(500), 500, 1, 0)
    assert (whole != noise.permute(np.arange(500), 500, 1, 1)).sum() > 450
    some = np.array([499, 3, 77])
    assert (noise.permute(some, 500, 1, 0) == whole[some]).all()


def test_permute_moves_items_evenly():
    # Where the first item lands, over many keys: uniform over ten bins (chi-square, 9 d.o.f.).
    landed = [int(noise.permute(np.array([0]), 1000, 5, epoch)[0]) for epoch in range(2000)]
    bins = np.bincount(np.array(landed) // 100, minlength=10)
    assert ((bins - 200.0) ** 2 / 200).sum() < 27.9  # p = 0.001


def test_uniform_is_uniform_and_uncorrelated_between_neighbours():
    u = noise.RowNoise(3, np.zeros(100, int), np.arange(100)).uniform(0, 1000)
    assert u.shape == (100, 1000)
    assert 0 <= u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(u[:, 1:].ravel(), u[:, :-1].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(u[1:].ravel(), u[:-1].ravel())[0, 1]) < 0.01


def test_noise_of_a_row_depends_on_nothing_but_its_index():
    rows = noise.RowNoise(9, np.array([2, 2, 5]), np.array([10, 11, 12])).uniform(1, 16)
    alone = noise.RowNoise(9, np.array([2]), np.array([11])).uniform(1, 16)
    assert (rows[1] == alone[0]).all()
    longer = noise.RowNoise(9, np.array([2]), np.array([11])).uniform(1, 32)
    assert (longer[0, :16] == alone[0]).all()
    for other in (noise.RowNoise(8, [2], [11]), noise.RowNoise(9, [3], [11])):
        assert (other.uniform(1, 16) != alone).all()
    assert (noise.RowNoise(9, [2], [11]).uniform(2, 16) != alone).all()


def test_noise_stays_what_it_was():
    # Numbers of the first version: batches of a run that goes on hang on them.
    assert noise.bits(1, 2, 3) == 13760139118915268323
    assert noise.permute(np.arange(6), 1000, 7, 3).tolist() == [631, 501, 655, 135, 708, 466]
    u = noise.RowNoise(7, [3], [11]).uniform(2, 3)
    assert u.round(8).tolist() == [[0.52675603, 0.95061162, 0.36830626]]


def test_counters_may_be_numbers_or_arrays():
    seeds, rows = [0, -3, 2**64 - 1], np.arange(4)
    whole = noise.bits(np.array(seeds, object).reshape(3, 1) % 2**64, rows)
    assert (whole == [noise.bits(seed, rows) for seed in seeds]).all()
    assert (whole == [[noise.bits(seed, int(row)) for row in rows] for seed in seeds]).all()


@pytest.mark.parametrize("size", [1025, 3000, 4096])  # a quarter to all of its Feistel range
def test_permute_of_few_is_that_of_many(size):
    whole = noise.permute(np.arange(size), size, 1)
    alone = [noise.permute(np.array([i]), size, 1)[0] for i in range(0, size, 50)]
    assert (whole[::50] == alone).all()
