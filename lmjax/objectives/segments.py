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
    real_BT = documents_BT >= 0
    index_T = np.arange(length, dtype=np.int32)
    first_BT = np.maximum.accumulate(np.where(starts_BT, index_T, 0), axis=1)
    segment_ids_BT = np.cumsum(starts_BT, axis=1, dtype=np.int32)
    return segment_ids_BT * real_BT, (index_T - first_BT) * real_BT
