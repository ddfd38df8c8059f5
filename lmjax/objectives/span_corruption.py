"""Span corruption: an encoder reads text with spans cut out, a decoder writes the spans.

Raffel et al. 2020 (T5), section 3.1.4, and the T5 code (t5/data/preprocessors.py:
`random_spans_helper`, `random_spans_noise_mask`, `noise_span_to_unique_sentinel`).

    text     Thank you for inviting me to your party last week .
    encoder  Thank you <0> me to your party <1> week . eos
    targets  <0> for inviting <1> last eos

As there, a window is cut from the stream without regard to documents, starts with text that stays
and so ends with a span that goes; sentinels count down from the last row of the embedding, or from
where an imported tokenizer has them. With 15 % and spans of 3 a window of 568 tokens gives 512
inputs and 114 targets.

Dimension key: B rows, W raw tokens of a window, S encoder length, T target length, K spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmjax.batch import Batch, Ids, Spec
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.noise import RowNoise
from lmjax.objectives import two_sides
from lmjax.objectives.choose import partition
from lmjax.objectives.description import (
    AFTER,
    BEFORE,
    FILLING,
    Description,
    Gap,
    Prompt,
    percent,
)

NUM_SENTINELS = 128
ARCHITECTURE = "encoder_decoder"

_HIDDEN_SPANS, _PLAIN_SPANS = range(2)  # noise streams


def span_counts(
    length_B: np.ndarray, mask_rate: float, mean_span_length: float
) -> tuple[np.ndarray, np.ndarray]:
    """(hidden tokens, spans of them) for texts of so many tokens, int64; none below two tokens."""
    length_B = np.asarray(length_B, np.int64)
    hidden_B = np.clip(np.rint(length_B * mask_rate).astype(np.int64), 1, length_B - 1)
    spans_B = np.maximum(np.rint(hidden_B / mean_span_length).astype(np.int64), 1)
    return np.where(length_B < 2, 0, hidden_B), np.where(length_B < 2, 0, spans_B)


def raw_length(seq_len: int, mask_rate: float, mean_span_length: float) -> int:
    """The longest text whose encoder side, sentinels and eos included, fits `seq_len`.

    Raises:
      UserError: not even two tokens do.
    """
    length_N = np.arange(2, int(seq_len / (1 - mask_rate)) + 4)  # hidden tokens cost nothing
    hidden_N, spans_N = span_counts(length_N, mask_rate, mean_span_length)
    fits_N = length_N - hidden_N + spans_N + 1 <= seq_len
    if not fits_N.any():
        raise UserError(
            f"config.data.seq_len={seq_len} is too short for a token, a sentinel and the end "
            "token; take 3 or more"
        )
    last = np.flatnonzero(fits_N)[-1]
    # T5's own exception, so that both sides are equally long and a round number.
    if mask_rate == 0.5 and hidden_N[last] + spans_N[last] + 1 > seq_len and last:
        last -= 1
    return int(length_N[last])


@dataclass(frozen=True)
class SpanCorruption:
    """Rows of `seq_len` encoder inputs and what it takes to name the rest, `target_length`.

    round(mask_rate x tokens) tokens are hidden, in round(those / mean_span_length) spans. A window
    that the text fills only in part is corrupted as far as it goes, in the same shares; less than
    two tokens weigh nothing.

    Raises:
      UserError: more spans than sentinels, or than tokens to stand between them.
    """

    seq_len: int
    ids: Ids
    mask_rate: float = 0.15
    mean_span_length: float = 3.0
    exact_likelihood = False
    joins_documents = True
    closes_rows = True

    def __post_init__(self) -> None:
        length, hidden, spans = self.window_length, self._num_hidden, self.num_spans
        what = (
            f"config.objective.mask_rate={self.mask_rate} and objective.mean_span_length="
            f"{self.mean_span_length} hide {hidden} of {length} tokens (data.seq_len="
            f"{self.seq_len}) in {spans} spans"
        )
        if spans > length - hidden:
            raise UserError(
                f"{what}, more than there are tokens to stand between them ({length - hidden}); "
                "lower the rate or lengthen the spans"
            )
        own = self.ids.num_sentinels
        if spans > (sentinels := NUM_SENTINELS if own is None else own):
            raise UserError(
                f"{what}, but there are only {sentinels} sentinels; shorten data.seq_len, "
                "lengthen the spans or lower the rate"
            )

    @cached_property
    def window_length(self) -> int:
        return raw_length(self.seq_len, self.mask_rate, self.mean_span_length)

    @property
    def window_stride(self) -> int:
        return self.window_length

    @cached_property
    def _num_hidden(self) -> int:
        return int(span_counts(self.window_length, self.mask_rate, self.mean_span_length)[0])

    @cached_property
    def num_spans(self) -> int:
        """K, the hidden spans of a full window."""
        return int(span_counts(self.window_length, self.mask_rate, self.mean_span_length)[1])

    @property
    def target_length(self) -> int:
        """T, the hidden tokens, their sentinels and eos."""
        return self._num_hidden + self.num_spans + 1

    def spec(self, num_rows: int) -> Spec:
        return two_sides.spec(num_rows, self.seq_len, self.target_length)

    def places(self, length_N: np.ndarray) -> dict[str, np.ndarray]:
        length_N = np.asarray(length_N, np.int64)
        hidden_N, spans_N = self._counts(length_N)
        return {"enc_inputs": length_N - hidden_N + spans_N + 1, "inputs": hidden_N + spans_N + 1}

    def _counts(self, length_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return span_counts(length_N, self.mask_rate, self.mean_span_length)

    def _side_lengths(self, width: int) -> tuple[int, int]:
        """(encoder length, target length) of windows of `width` tokens."""
        if width == self.window_length:
            return self.seq_len, self.target_length
        places = self.places(np.array(width))
        return int(places["enc_inputs"]), int(places["inputs"])

    def __call__(self, tokens_BW: np.ndarray, documents_BW: np.ndarray, noise: RowNoise) -> Batch:
        width = tokens_BW.shape[1]
        length_B = (documents_BW >= 0).sum(axis=1)
        length_B = np.where(length_B < 2, 0, length_B)
        plain_BK, hidden_BK = self._spans(length_B, width, noise)
        source_length, target_length = self._side_lengths(width)
        end_BK = np.cumsum(hidden_BK, axis=1)
        source_BS, in_source_BS = self._side(
            tokens_BW, np.cumsum(plain_BK, axis=1), hidden_BK, plain_BK, source_length
        )
        target_BT, in_target_BT = self._side(
            tokens_BW, end_BK - hidden_BK, plain_BK, hidden_BK, target_length
        )
        given_BT = (target_BT == self.ids.eos) | (target_BT > self.ids.sentinel(self.num_spans))
        return two_sides.fields(
            source_BS, in_source_BS, target_BT, in_target_BT, ~given_BT, self.ids
        )

    def _spans(
        self, length_B: np.ndarray, width: int, noise: RowNoise
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of the spans that stay and of those that go, by turns, int64 [B, K]; 0: none."""
        hidden_B, spans_B = self._counts(length_B)
        plain_B = length_B - hidden_B
        spans_B = np.minimum(spans_B, plain_B)  # a few tokens round to too many spans
        num_hidden, size = map(int, self._counts(width))
        hidden_BK = partition(noise.uniform(_HIDDEN_SPANS, num_hidden), hidden_B, spans_B, size)
        num_plain = width - num_hidden
        plain_BK = partition(noise.uniform(_PLAIN_SPANS, num_plain), plain_B, spans_B, size)
        return plain_BK, hidden_BK

    def _side(
        self,
        tokens_BW: np.ndarray,
        before_BK: np.ndarray,
        gone_BK: np.ndarray,
        own_BK: np.ndarray,
        length: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """One side of the rows: its own spans, and a sentinel for each of the other's; eos.

        Args:
          tokens_BW: the text.
          before_BK: tokens of this side in front of sentinel k.
          gone_BK, own_BK: lengths of the other side's spans and of its own; 0: no such span.
          length: of the side.

        Returns:
          int32 [B, length] and where it holds something, bool.
        """
        num_rows, size = own_BK.shape
        used_BK = own_BK > 0
        column_BK = np.where(used_BK, before_BK + np.arange(size), length)  # else one behind
        flat_BK = column_BK + np.arange(num_rows)[:, None] * (length + 2)
        # Tokens follow on each other but behind a sentinel, which stands for those that are gone.
        step_BL = np.ones((num_rows, length + 2), np.int32)
        step_BL.reshape(-1)[flat_BK + 1] = gone_BK
        step_BL[:, 0] = 0
        index_BL = np.cumsum(step_BL, axis=1, dtype=np.int32)
        first_B1 = np.arange(num_rows, dtype=np.int32)[:, None] * tokens_BW.shape[1]
        np.minimum(index_BL, tokens_BW.shape[1] - 1, out=index_BL)
        side_BL = tokens_BW.reshape(-1).take(index_BL + first_B1)
        side_BL.reshape(-1)[flat_BK] = self.ids.sentinel(np.arange(size, dtype=np.int32))
        count_B1 = (own_BK.sum(axis=1) + used_BK.sum(axis=1))[:, None]  # without eos
        real_BL = np.arange(length) <= np.where(count_B1 > 0, count_B1, -1)
        side_BL = np.where(real_BL, side_BL[:, :length], np.int32(self.ids.pad))
        ended = np.flatnonzero(count_B1)
        side_BL[ended, count_B1[ended, 0]] = self.ids.eos
        return side_BL, real_BL


def describe(config: Config) -> Description:
    """What it says of itself."""
    rate, mean = config.objective.mask_rate, config.objective.mean_span_length
    return Description(
        name="span corruption",
        how=f"{percent(rate)} of the tokens are hidden, in spans of {mean:g} tokens on average, "
        "and written behind the sentinel that stands for their span",
        does="fills hidden spans of a text",
        frame=((), ("eos",)),
        left_out="sentinels and end tokens",
        prompts=(Prompt(("It is", 0, " today."), "fill the span"),),
        # A window of training ends with a hidden span, and the next sentinel ends the one before.
        gap=Gap((BEFORE, 0, AFTER, 1), (0,), (FILLING, 1)),
        continuation=Gap((BEFORE, 0), (0,), (FILLING,)),
    )


def make(config: Config, ids: Ids) -> SpanCorruption:
    """The objective that `config` describes."""
    return SpanCorruption(
        seq_len=config.data.seq_len,
        ids=ids,
        mask_rate=config.objective.mask_rate,
        mean_span_length=config.objective.mean_span_length,
    )
