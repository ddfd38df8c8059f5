"""Prefix LM: an encoder reads the first part of a text, a decoder writes the rest.

Raffel et al. 2020 (T5), section 3.2.1: a text is split at a random point, every one as likely as
any other. With a target share (Tay et al. 2022, UL2, table 1: 25 %) the split stands there instead.

    text     Thank you for inviting me to your party last week .
    encoder  Thank you for inviting eos
    targets  me to your party last week . eos

Dimension key: B rows, W raw tokens of a window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmjax.batch import Batch, Ids, Spec
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.noise import RowNoise
from lmjax.objectives import two_sides
from lmjax.objectives.description import AFTER, BEFORE, FILLING, Description, Gap, Prompt

NUM_SENTINELS = 0
ARCHITECTURE = "encoder_decoder"

_SPLIT = 0  # noise stream


@dataclass(frozen=True)
class PrefixLM:
    """Rows of `seq_len` on the encoder's side; either side has one token of the text at least.

    Texts of less than two tokens weigh nothing. Content is all but the end token.

    Attributes:
      seq_len: what the longest prefix and its end token take.
      ids: special ids.
      target_share: share of the text that is to be written; None: a random one.

    Raises:
      UserError: `seq_len` is too short for that.
    """

    seq_len: int
    ids: Ids
    target_share: float | None = None
    exact_likelihood = False
    joins_documents = True
    closes_rows = True

    def __post_init__(self) -> None:
        if self.seq_len < 2:
            raise UserError(
                f"config.data.seq_len={self.seq_len} is too short for a token and the end token; "
                "take 2 or more"
            )

    @property
    def window_length(self) -> int:
        """The longest text whose prefix fits, whatever the split."""
        if self.target_share is None:
            return self.seq_len
        length = int(self.seq_len / (1 - self.target_share)) + 2
        while length - int(self._target(length)) + 1 > self.seq_len:
            length -= 1
        return length

    @property
    def window_stride(self) -> int:
        return self.window_length

    def _target(self, length_N: np.ndarray | int) -> np.ndarray:
        """Tokens of the text to write, where the share is given."""
        wanted_N = np.rint(np.asarray(length_N) * self.target_share).astype(np.int64)
        return np.clip(wanted_N, 1, np.maximum(np.asarray(length_N) - 1, 1))

    def spec(self, num_rows: int) -> Spec:
        target = int(self.places(np.array(self.window_length))["inputs"])
        return two_sides.spec(num_rows, self.seq_len, target)

    def places(self, length_N: np.ndarray) -> dict[str, np.ndarray]:
        length_N = np.asarray(length_N, np.int64)
        if self.target_share is None:
            return {"enc_inputs": length_N, "inputs": length_N}
        target_N = self._target(length_N)
        return {"enc_inputs": length_N - target_N + 1, "inputs": target_N + 1}

    def __call__(self, tokens_BW: np.ndarray, documents_BW: np.ndarray, noise: RowNoise) -> Batch:
        width = tokens_BW.shape[1]
        length_B = (documents_BW >= 0).sum(axis=1)
        if self.target_share is None:
            drawn_B = noise.uniform(_SPLIT, 1)[:, 0] * (length_B - 1)
            prefix_B = 1 + np.floor(drawn_B).astype(np.int64)
        else:
            prefix_B = length_B - self._target(length_B)
        column_W = np.arange(width)
        real_BW = (column_W < length_B[:, None]) & (length_B >= 2)[:, None]
        prefix_BW = column_W < prefix_B[:, None]
        sizes = self.places(np.array(width))
        source_length = self.seq_len if width == self.window_length else int(sizes["enc_inputs"])
        source = two_sides.gathered(tokens_BW, real_BW & prefix_BW, source_length, self.ids)
        target = two_sides.gathered(tokens_BW, real_BW & ~prefix_BW, int(sizes["inputs"]), self.ids)
        content_BT = np.arange(target[0].shape[1]) < (length_B - prefix_B)[:, None]
        return two_sides.fields(*source, *target, content_BT, self.ids)


def describe(config: Config) -> Description:
    """What it says of itself."""
    del config
    gap = Gap((BEFORE,), (), (FILLING, AFTER))
    return Description(
        name="prefix language modelling",
        how="the encoder reads the first part of a text, up to a random point, and the decoder "
        "writes the rest",
        does="continues a text",
        frame=((), ("eos",)),
        left_out="end tokens",
        prompts=(Prompt(("The weather is",), "go on"),),
        gap=gap,
        continuation=gap,
    )


def make(config: Config, ids: Ids) -> PrefixLM:
    """The objective that `config` describes."""
    return PrefixLM(seq_len=config.data.seq_len, ids=ids)
