"""With one process nothing is communicated, and words of 31 bits make numbers of 62."""

import numpy as np

from lmjax.parallel import hosts


def test_one_process_decides_by_itself():
    assert (hosts.index(), hosts.number()) == (0, 1)
    assert hosts.agreed(1 << 40) == 1 << 40
    fields = [np.array([3, 1]), np.array([5, 6])]
    assert hosts.gathered(fields) is fields
    vote = hosts.Vote()
    assert [vote(False), vote(True), vote(False)] == [False, True, False]
    hosts.wait("nobody")


def test_words_and_back():
    values = np.array([0, 1, (1 << 31) - 1, 1 << 31, 1_763_000_000_000_000_000])
    words = hosts._words(values)
    assert words.dtype == np.int32
    assert (words >= 0).all()
    assert (hosts._whole(words) == values).all()
