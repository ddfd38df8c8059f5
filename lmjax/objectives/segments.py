"""Segment ids and positions of rows that hold several documents."""

from __future__ import annotations

import numpy as np


def segments(documents_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the runs of equal document index in each row.

    Args:
      documents_BT: int [B, T], document index of each position, -1 for padding (at the end).

    Returns:
      segment_ids_BT: int32, 1, 2, ... per run, 0 where padding.
      positions_BT: int32, 0, 1, ... within each run, 0 where padding.
    """
    num_rows, length = documents_BT.shape
    starts_BT = np.ones((num_rows, length), bool)
    np.not_equal(documents_BT[:, 1:], documents_BT[:, :-1], out=starts_BT[:, 1:])
    # There are far fewer runs than positions: all but the last step is about runs.
    first_N = np.flatnonzero(starts_BT).astype(np.int32)
    length_N = np.diff(first_N, append=np.int32(starts_BT.size))
    run_N = np.arange(len(first_N), dtype=np.int32)
    number_N = run_N - np.maximum.accumulate(np.where(first_N % length, 0, run_N)) + 1
    number_N *= documents_BT.reshape(-1)[first_N] >= 0
    segment_ids_BT = np.repeat(number_N, length_N).reshape(num_rows, length)
    position_M = np.arange(starts_BT.size, dtype=np.int32) - np.repeat(first_N, length_N)
    positions_BT = position_M.reshape(num_rows, length)
    if not number_N.all():
        positions_BT *= segment_ids_BT > 0
    return segment_ids_BT, positions_BT
