"""The batch contract: what objectives make, models read and the loss weighs.

A batch is a flat dict of arrays. Dimension key:

  B  rows            T  target length           S  source length (encoder-decoders)
  P  predicted positions per row (= T unless the objective predicts only some)

| field                     | shape  | dtype   | meaning                                            |
|---------------------------|--------|---------|----------------------------------------------------|
| inputs                    | [B, T] | int32   | ids the model reads                                |
| segment_ids               | [B, T] | int32   | 1, 2, ... per document of the row; 0 is padding    |
| positions                 | [B, T] | int32   | 0, 1, ... within each segment                      |
| targets                   | [B, P] | int32   | ids to predict                                     |
| weights                   | [B, P] | float32 | weight of each prediction in the loss; 0: none     |
| content_weights           | [B, P] | float32 | the same, only where nothing was given away        |

`info` fields (see `INFO_PREFIX`) stay on the host: row numbers for the ledger, text sizes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Batch = dict[str, np.ndarray]
Spec = dict[str, tuple[tuple[int, ...], np.dtype]]

INFO_PREFIX = "info/"


def device_fields(batch: Mapping) -> dict:
    """The part of a batch that goes to the device."""
    return {k: v for k, v in batch.items() if not k.startswith(INFO_PREFIX)}


def num_real_tokens(batch: Mapping):
    """Number of ids in the batch that are no padding; numpy or JAX, an integer scalar."""
    return sum((v > 0).sum() for k, v in batch.items() if k.endswith("segment_ids"))


def check(batch: Batch, spec: Spec) -> None:
    """Raises ValueError unless every field of `spec` is there with its shape and dtype."""
    for name, (shape, dtype) in spec.items():
        array = batch[name]
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"batch field {name}: got {array.dtype}{list(array.shape)}, "
                f"the contract says {dtype}{list(shape)}"
            )
