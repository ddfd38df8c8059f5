"""Uniformly random choices without replacement, another number of them in each row."""

from __future__ import annotations

import numpy as np


def choose(
    noise_BL: np.ndarray, candidates_BL: np.ndarray, count_B: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses `count` candidates of each row, every subset of that size as likely as any other.

    They are those with the smallest noise, and of equal noise the first.

    Args:
      noise_BL: independent uniform floats in [0, 1).
      candidates_BL: bool, what may be chosen.
      count_B: integers, at most `size` and at most the number of candidates; below 0 is 0.
      size: slots of the result.

    Returns:
      chosen_BC: int64 [B, size], positions in ascending order; L in unused slots, at the end.
      used_BC: bool [B, size].
    """
    count_B, noise_BL = np.maximum(count_B, 0), np.where(candidates_BL, noise_BL, 1.0)
    used_BC = np.arange(size) < count_B[:, None]
    chosen_BC = np.full(used_BC.shape, noise_BL.shape[1])
    if not noise_BL.size:
        return chosen_BC, used_BC
    last_B = np.sort(noise_BL, axis=1)[np.arange(len(noise_BL)), count_B - 1]
    chosen_N = np.flatnonzero(noise_BL <= np.where(count_B > 0, last_B, -1.0)[:, None])
    if len(chosen_N) != count_B.sum():  # equal noise, which 53 bits hardly ever give
        rank_BL = np.argsort(np.argsort(noise_BL, axis=1, kind="stable"), axis=1)
        chosen_N = np.flatnonzero(rank_BL < count_B[:, None])
    chosen_BC[used_BC] = chosen_N % noise_BL.shape[1]  # both run row by row
    return chosen_BC, used_BC


def partition(
    noise_BL: np.ndarray, total_B: np.ndarray, parts_B: np.ndarray, size: int
) -> np.ndarray:
    """Splits each total into positive parts, every ordered partition as likely as any other.

    The parts end at gaps between the items, chosen as above (T5's `random_segmentation`).

    Args:
      noise_BL: independent uniform floats in [0, 1), L >= total - 1.
      total_B: integers to split.
      parts_B: number of parts, at most the total; 0 only for a total of 0.
      size: slots of the result, at least the largest number of parts and 1.

    Returns:
      int64 [B, size], the parts in order; 0 in unused slots, at the end.
    """
    gaps_BL = np.arange(noise_BL.shape[1]) < total_B[:, None] - 1
    gap_BC, used_BC = choose(noise_BL, gaps_BL, parts_B - 1, size - 1)
    end_BC = np.where(used_BC, gap_BC + 1, total_B[:, None])
    return np.diff(end_BC, axis=1, prepend=0, append=total_B[:, None])
