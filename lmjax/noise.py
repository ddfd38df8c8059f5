"""Counter-based random numbers: a hash of (seed, epoch, index, position), vectorised in numpy.

Nothing here has state. The noise of row `index` in `epoch` is the same whichever worker, host or
batch asks for it, which is what makes a batch a pure function of (data, seed, step).

The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014); `permute` is a balanced Feistel network over it with
cycle-walking (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_FEISTEL_ROUNDS = 6


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, a bijection of uint64."""
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def bits(*counters: np.ndarray | int) -> np.ndarray:
    """Hashes broadcast integer counters, in order, to uint64 of their broadcast shape.

    By convention the counters are (seed, stream, epoch, index, position): `stream` keeps apart the
    different uses of the same row's noise.
    """
    with np.errstate(over="ignore"):
        state = _GOLDEN
        for counter in counters:
            state = _mix((state ^ np.asarray(counter).astype(np.uint64)) * _MIX2 + _GOLDEN)
    return state


def uniform(*counters: np.ndarray | int) -> np.ndarray:
    """Floats in [0, 1) with 53 random bits, float64 of the counters' broadcast shape."""
    return (bits(*counters) >> np.uint64(11)) * 2.0**-53


def permute(index: np.ndarray, size: int, *key: int) -> np.ndarray:
    """Image of each index under the pseudo-random permutation of range(size) that `key` names.

    Args:
      index: integers in [0, size), any shape.
      size: length of the permuted range, below 2**62.
      key: integers, e.g. (seed, epoch).

    Returns:
      int64 of index's shape; distinct indices have distinct images.
    """
    half_bits = np.uint64(max(1, (int(size - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    round_keys = [bits(*key, r) for r in range(_FEISTEL_ROUNDS)]

    def encrypt(x: np.ndarray) -> np.ndarray:
        left, right = x >> half_bits, x & mask
        for round_key in round_keys:
            left, right = right, left ^ (bits(round_key, right) & mask)
        return (left << half_bits) | right

    image = encrypt(np.asarray(index).astype(np.uint64))
    while (outside := image >= np.uint64(size)).any():  # walk the cycle until inside the range
        image = np.where(outside, encrypt(image), image)
    return image.astype(np.int64)


class RowNoise:
    """The noise of a batch of rows; each row's depends on (seed, epoch, index) alone."""

    def __init__(self, seed: int, epoch_B: np.ndarray, index_B: np.ndarray):
        self._seed = seed
        self._epoch_B1 = np.asarray(epoch_B)[:, None]
        self._index_B1 = np.asarray(index_B)[:, None]

    def rows(self, row_N: np.ndarray) -> RowNoise:
        """The noise of some of the rows."""
        return RowNoise(self._seed, self._epoch_B1[row_N, 0], self._index_B1[row_N, 0])

    def uniform(self, stream: int, length: int) -> np.ndarray:
        """Floats in [0, 1), float64 [B, length]; `stream` names the use, one number for each."""
        position_L = np.arange(length)[None, :]
        return uniform(self._seed, stream, self._epoch_B1, self._index_B1, position_L)
