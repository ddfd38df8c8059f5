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
from lmjax.objectives.choose import partition

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
        source, target = (num_rows, self.seq_len), (num_rows, self.target_length)
        ints = ("enc_inputs", "enc_segment_ids", "enc_positions")
        spec = dict.fromkeys(ints, (source, np.int32))
        ints = ("inputs", "segment_ids", "positions", "targets")
        spec |= dict.fromkeys(ints, (target, np.int32))
        return spec | dict.fromkeys(("weights", "content_weights"), (target, np.float32))

    def __call__(self, tokens_BW: np.ndarray, documents_BW: np.ndarray, noise: RowNoise) -> Batch:
        length_B = (documents_BW >= 0).sum(axis=1)
        length_B = np.where(length_B < 2, 0, length_B)
        span_BW = self._spans(length_B, noise)
        real_BW = np.arange(tokens_BW.shape[1]) < length_B[:, None]
        starts_BW = np.diff(span_BW, axis=1, prepend=-1) != 0
        hidden_BW = (span_BW & 1).astype(bool)
        # Either side keeps its own spans whole and one sentinel of each of the other's.
        shown_BW = np.where(starts_BW, self.ids.sentinel(span_BW >> 1), tokens_BW)
        source_BS, in_source_BS = self._packed(
            np.where(hidden_BW, shown_BW, tokens_BW),
            real_BW & (~hidden_BW | starts_BW),
            self.seq_len,
        )
        target_BT, in_target_BT = self._packed(
            np.where(hidden_BW, tokens_BW, shown_BW),
            real_BW & (hidden_BW | starts_BW),
            self.target_length,
        )
        shifted_BT = np.full_like(target_BT, self.ids.pad)
        shifted_BT[:, 0] = np.where(in_target_BT[:, 0], self.ids.decoder_start, self.ids.pad)
        shifted_BT[:, 1:] = np.where(in_target_BT[:, 1:], target_BT[:, :-1], self.ids.pad)
        given_BT = (target_BT == self.ids.eos) | (target_BT > self.ids.sentinel(self.num_spans))
        return {
            "enc_inputs": source_BS,
            "enc_segment_ids": in_source_BS.astype(np.int32),
            "enc_positions": np.arange(self.seq_len, dtype=np.int32) * in_source_BS,
            "inputs": shifted_BT,
            "segment_ids": in_target_BT.astype(np.int32),
            "positions": np.arange(self.target_length, dtype=np.int32) * in_target_BT,
            "targets": target_BT,
            "weights": in_target_BT.astype(np.float32),
            "content_weights": (in_target_BT & ~given_BT).astype(np.float32),
        }

    def _spans(self, length_B: np.ndarray, noise: RowNoise) -> np.ndarray:
        """Which span each position is in, int32 [B, W]: even ones stay, odd ones are hidden."""
        hidden_B, spans_B = span_counts(length_B, self.mask_rate, self.mean_span_length)
        plain_B = length_B - hidden_B
        spans_B = np.minimum(spans_B, plain_B)  # a few tokens round to too many spans
        num_hidden, size = self._num_hidden, self.num_spans
        hidden_BK = partition(noise.uniform(_HIDDEN_SPANS, num_hidden), hidden_B, spans_B, size)
        num_plain = self.window_length - num_hidden
        plain_BK = partition(noise.uniform(_PLAIN_SPANS, num_plain), plain_B, spans_B, size)
        lengths_BK2 = np.stack([plain_BK, hidden_BK], axis=-1)
        starts_BN = np.cumsum(lengths_BK2.reshape(len(length_B), -1), axis=1)[:, :-1]
        starts_BW = np.zeros((len(length_B), self.window_length), np.int32)
        np.put_along_axis(starts_BW, starts_BN, 1, axis=1)
        return np.cumsum(starts_BW, axis=1, dtype=np.int32)

    def _packed(
        self, values_BW: np.ndarray, keep_BW: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The values to keep, moved to the front and closed by eos; and where they are (bool)."""
        count_B1 = keep_BW.sum(axis=1, keepdims=True)
        column_L = np.arange(length)
        packed_BL = np.full((len(values_BW), length), self.ids.pad, np.int32)
        packed_BL[column_L < count_B1] = values_BW[keep_BW]  # both run row by row
        real_BL = (column_L <= count_B1) & (count_B1 > 0)
        packed_BL[real_BL & (column_L == count_B1)] = self.ids.eos
        return packed_BL, real_BL


def make(config: Config, ids: Ids) -> SpanCorruption:
    """The objective that `config` describes."""
    return SpanCorruption(
        seq_len=config.data.seq_len,
        ids=ids,
        mask_rate=config.objective.mask_rate,
        mean_span_length=config.objective.mean_span_length,
    )
