"""Causal language modelling: predict each token from those before it in its document.

The end-of-document token plays both parts it has in GPT-2 (Radford et al. 2019): it is the last
target of its document and the first input of the next one. Input t belongs to the segment of its
target t+1, so every token of the text is predicted exactly once, the first of a document from the
bare separator, and none is predicted from another document.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmjax.batch import Batch, Ids, Spec
from lmjax.config import Config
from lmjax.noise import RowNoise
from lmjax.objectives.description import Description
from lmjax.objectives.segments import segments

NUM_SENTINELS = 0
ARCHITECTURE = "decoder"


@dataclass(frozen=True)
class CausalLM:
    """Rows of `seq_len` inputs with their next tokens; consecutive windows share one token."""

    seq_len: int
    exact_likelihood = True
    joins_documents = False
    closes_rows = False

    @property
    def window_length(self) -> int:
        return self.seq_len + 1

    @property
    def window_stride(self) -> int:
        return self.seq_len

    def spec(self, num_rows: int) -> Spec:
        shape = (num_rows, self.seq_len)
        ints = dict.fromkeys(("inputs", "segment_ids", "positions", "targets"), (shape, np.int32))
        return ints | dict.fromkeys(("weights", "content_weights"), (shape, np.float32))

    def places(self, length_N: np.ndarray) -> dict[str, np.ndarray]:
        return {"inputs": np.asarray(length_N, np.int64)}

    def __call__(self, tokens_BW: np.ndarray, documents_BW: np.ndarray, noise: RowNoise) -> Batch:
        del noise  # nothing is corrupted
        segment_ids_BT, positions_BT = segments(documents_BW[:, 1:])
        weights_BT = (segment_ids_BT > 0).astype(np.float32)
        return {
            "inputs": np.ascontiguousarray(tokens_BW[:, :-1], np.int32),
            "segment_ids": segment_ids_BT,
            "positions": positions_BT,
            "targets": np.ascontiguousarray(tokens_BW[:, 1:], np.int32),
            "weights": weights_BT,
            "content_weights": weights_BT,
        }


def describe(config: Config) -> Description:
    """What it says of itself."""
    del config
    return Description(
        name="causal language modelling",
        how="each token is predicted from those before it",
        does="continues a text",
        special=("bos",),
    )


def make(config: Config, ids: Ids) -> CausalLM:
    """The objective that `config` describes."""
    del ids  # it makes no id of its own
    return CausalLM(seq_len=config.data.seq_len)
