"""Counter-based random numbers: a hash of (seed, epoch, index, position), vectorised in numpy.

Nothing here has state. The noise of row `index` in `epoch` is the same whichever worker, host or
batch asks for it, which is what makes a batch a pure function of (data, seed, step).

The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014); `permute` is a balanced Feistel network over it with
cycle-walking (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
"""

from __future__ import annotations

import functools

import numpy as np

_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ARRAY_GOLDEN, _ARRAY_MIX1, _ARRAY_MIX2 = map(np.uint64, (_GOLDEN, _MIX1, _MIX2))
_WORD = 2**64 - 1
_FEISTEL_ROUNDS = 6
_FEW = 32  # so few numbers cost less one by one than a call of numpy for every operation


def _absorb(state: int, counter: int) -> int:
    """The state behind one more counter: SplitMix64's finaliser, a bijection of uint64."""
    x = ((state ^ counter) * _MIX2 + _GOLDEN) & _WORD
    x = ((x ^ (x >> 30)) * _MIX1) & _WORD
    x = ((x ^ (x >> 27)) * _MIX2) & _WORD
    return x ^ (x >> 31)


def _absorb_array(state: np.ndarray | np.uint64, counter: np.ndarray) -> np.ndarray:
    """The same of uint64 arrays, broadcast."""
    x = state ^ counter
    x *= _ARRAY_MIX2
    x += _ARRAY_GOLDEN
    x ^= x >> np.uint64(30)
    x *= _ARRAY_MIX1
    x ^= x >> np.uint64(27)
    x *= _ARRAY_MIX2
    x ^= x >> np.uint64(31)
    return x


@functools.lru_cache(maxsize=1 << 12)
def _state(*counters: int) -> int:
    """The state behind single counters, which are often the same ones."""
    return functools.reduce(
        lambda state, counter: _absorb(state, counter & _WORD), counters, _GOLDEN
    )


def bits(*counters: np.ndarray | int) -> np.ndarray:
    """Hashes broadcast integer counters, in order, to uint64 of their broadcast shape.

    By convention the counters are (seed, stream, epoch, index, position): `stream` keeps apart the
    different uses of the same row's noise.
    """
    num_single = next((n for n, c in enumerate(counters) if np.ndim(c)), len(counters))
    state = np.uint64(_state(*map(int, counters[:num_single])))
    for counter in counters[num_single:]:
        state = _absorb_array(state, np.asarray(counter).astype(np.uint64))
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
    half_bits = max(1, (int(size - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    rounds = [_state(_state(*map(int, key), number)) for number in range(_FEISTEL_ROUNDS)]
    array_rounds, array_bits, array_mask = np.uint64(rounds), np.uint64(half_bits), np.uint64(mask)

    def encrypt(x: int) -> int:
        left, right = x >> half_bits, x & mask
        for state in rounds:
            left, right = right, left ^ (_absorb(state, right) & mask)
        return (left << half_bits) | right

    def encrypt_array(x: np.ndarray) -> np.ndarray:
        left, right = x >> array_bits, x & array_mask
        for state in array_rounds:
            mixed = _absorb_array(state, right)
            mixed &= array_mask
            mixed ^= left
            left, right = right, mixed
        return (left << array_bits) | right

    # Outside the range one walks along the cycle until inside.
    index = np.asarray(index)
    image_N = encrypt_array(index.reshape(-1).astype(np.uint64))
    outside_M = np.flatnonzero(image_N >= size)
    while len(outside_M) > _FEW:
        image_N[outside_M] = walked_M = encrypt_array(image_N[outside_M])
        outside_M = outside_M[walked_M >= size]
    for m in outside_M.tolist():
        image = int(image_N[m])
        while image >= size:
            image = encrypt(image)
        image_N[m] = image
    return image_N.astype(np.int64).reshape(index.shape)


class RowNoise:
    """The noise of a batch of rows; each row's depends on (seed, epoch, index) alone."""

    def __init__(self, seed: int, epoch_B: np.ndarray, index_B: np.ndarray):
        self._seed = seed
        self._epoch_B1 = np.asarray(epoch_B)[:, None]
        self._index_B1 = np.asarray(index_B)[:, None]

    def uniform(self, stream: int, length: int) -> np.ndarray:
        """Floats in [0, 1), float64 [B, length]; `stream` names the use, one number for each."""
        position_L = np.arange(length)[None, :]
        return uniform(self._seed, stream, self._epoch_B1, self._index_B1, position_L)
