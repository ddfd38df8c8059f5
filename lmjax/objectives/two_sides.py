"""The two sides of an encoder-decoder's rows: what is read, what is written, and their fields.

Dimension key: B rows, W raw tokens of a window, S encoder length, T target length, L either.
"""

from __future__ import annotations

import numpy as np

from lmjax.batch import Batch, Ids, Spec


def spec(num_rows: int, source_length: int, target_length: int) -> Spec:
    """Shapes and dtypes of `fields`."""
    source, target = (num_rows, source_length), (num_rows, target_length)
    ints = ("enc_inputs", "enc_segment_ids", "enc_positions")
    fields = dict.fromkeys(ints, (source, np.int32))
    ints = ("inputs", "segment_ids", "positions", "targets")
    fields |= dict.fromkeys(ints, (target, np.int32))
    return fields | dict.fromkeys(("weights", "content_weights"), (target, np.float32))


def gathered(
    values_BW: np.ndarray, keep_BW: np.ndarray, length: int, ids: Ids
) -> tuple[np.ndarray, np.ndarray]:
    """The values to keep, moved to the front and closed by eos; and where they are.

    Returns:
      int32 and bool [B, length]; a row that keeps nothing has nothing, no eos either.
    """
    count_B1 = keep_BW.sum(axis=1, keepdims=True)
    column_L = np.arange(length)
    gathered_BL = np.full((len(values_BW), length), ids.pad, np.int32)
    gathered_BL[column_L < count_B1] = values_BW[keep_BW]  # both run row by row
    real_BL = (column_L <= count_B1) & (count_B1 > 0)
    gathered_BL[real_BL & (column_L == count_B1)] = ids.eos
    return gathered_BL, real_BL


def fields(
    source_BS: np.ndarray,
    in_source_BS: np.ndarray,
    target_BT: np.ndarray,
    in_target_BT: np.ndarray,
    content_BT: np.ndarray,
    ids: Ids,
) -> Batch:
    """A batch of rows of one text each.

    Args:
      source_BS, target_BT: int32, what the encoder reads and the decoder writes.
      in_source_BS, in_target_BT: bool, where they are; the rest, behind them, is padding.
      content_BT: bool, the targets that nothing gives away.
      ids: the decoder reads `ids.decoder_start`, then the targets.
    """
    shifted_BT = np.full_like(target_BT, ids.pad)
    shifted_BT[:, 0] = np.where(in_target_BT[:, 0], ids.decoder_start, ids.pad)
    shifted_BT[:, 1:] = np.where(in_target_BT[:, 1:], target_BT[:, :-1], ids.pad)
    return {
        "enc_inputs": source_BS,
        "enc_segment_ids": in_source_BS.astype(np.int32),
        "enc_positions": np.arange(source_BS.shape[1], dtype=np.int32) * in_source_BS,
        "inputs": shifted_BT,
        "segment_ids": in_target_BT.astype(np.int32),
        "positions": np.arange(target_BT.shape[1], dtype=np.int32) * in_target_BT,
        "targets": target_BT,
        "weights": in_target_BT.astype(np.float32),
        "content_weights": (in_target_BT & content_BT).astype(np.float32),
    }
