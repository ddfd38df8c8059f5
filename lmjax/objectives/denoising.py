"""Denoising: an encoder reads a damaged text, a decoder writes the whole of it.

Lewis et al. 2020 (BART), section 2.2: sentences are put in any order, then spans of words, their
lengths drawn from a Poisson distribution, are each replaced by one mask token; a span of no words
inserts one.

    text     Thank you for inviting me . It was a party .
    encoder  bos It was <mask> . Thank <mask> inviting me <mask> . eos
    targets  bos Thank you for inviting me . It was a party . eos

round(mask_rate x words) words are hidden. Lengths are drawn until they come to that, the last one
cut to fit; no more are drawn than words are hidden, so that no text grows, and the last of so many
takes all that is left. The spans lie in any order and anywhere, with a word or more between two of
them, every such arrangement as likely as any other. A special token inside the text stays: a span
ends before it, and there is none that would begin with it.

Dimension key: B rows, W raw tokens of a window, N words at most W, K spans, L = 2 W + 1 slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmjax.batch import Batch, Ids, Spec
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.noise import RowNoise
from lmjax.objectives import two_sides, words
from lmjax.objectives.description import (
    AFTER,
    BEFORE,
    FILLING,
    MASK,
    Description,
    Gap,
    Prompt,
    percent,
)

NUM_SENTINELS = 0
ARCHITECTURE = "encoder_decoder"

_ORDER, _LENGTH, _PLACE = range(3)  # noise streams


@dataclass(frozen=True)
class Denoising:
    """Rows of `seq_len` on either side, with bos in front and eos behind.

    Content are the words that were hidden: what the encoder reads is as good as given away.

    Raises:
      UserError: a row has no room for text, or the tokenizer lacks a special token.
    """

    seq_len: int
    ids: Ids
    mask_rate: float = 0.3
    mean_span_length: float = 3.0
    permute_sentences: bool = True
    exact_likelihood = False
    joins_documents = True
    closes_rows = True

    def __post_init__(self) -> None:
        if self.seq_len < 4:
            raise UserError(
                f"config.data.seq_len={self.seq_len} leaves no room for text between the two "
                "special tokens of a row; take 4 or more"
            )
        if self.ids.mask is None or self.ids.bos is None:
            raise UserError(
                "denoising needs a mask and a begin token, and the tokenizer lacks one of them; "
                "take the tokenizer of a BART (tokenizer.path), or objective.name=span_corruption"
            )

    @property
    def window_length(self) -> int:
        return self.seq_len - 2

    @property
    def window_stride(self) -> int:
        return self.window_length

    def spec(self, num_rows: int) -> Spec:
        return two_sides.spec(num_rows, self.seq_len, self.seq_len)

    def places(self, length_N: np.ndarray) -> dict[str, np.ndarray]:
        return dict.fromkeys(("enc_inputs", "inputs"), np.asarray(length_N, np.int64) + 2)

    def __call__(self, tokens_BW: np.ndarray, documents_BW: np.ndarray, noise: RowNoise) -> Batch:
        num_rows, width = tokens_BW.shape
        real_BW = documents_BW >= 0
        starts_BW = words.word_starts(tokens_BW, documents_BW, self.ids.pieces)
        order_BW = np.broadcast_to(np.arange(width), (num_rows, width))
        if self.permute_sentences:
            sentences_BW = words.sentence_starts(tokens_BW, documents_BW, self.ids.pieces)
            starts_BW = starts_BW | sentences_BW
            order_BW = self._order(sentences_BW, real_BW, noise)
        moved_BW = np.take_along_axis(tokens_BW, order_BW, axis=1)
        starts_BW = np.take_along_axis(starts_BW, order_BW, axis=1)
        masks_BL, hidden_BW = self._infilled(starts_BW, moved_BW, real_BW, noise)
        # Slots: a mask or nothing in front of each token, the token or nothing, and one at the end.
        values_BL = np.full((num_rows, 2 * width + 2), self.ids.mask, np.int32)
        keep_BL = np.zeros((num_rows, 2 * width + 2), bool)
        values_BL[:, 0], keep_BL[:, 0] = self.ids.bos, real_BW[:, 0]
        values_BL[:, 2::2] = moved_BW
        keep_BL[:, 1::2], keep_BL[:, 2::2] = masks_BL, (real_BW & ~hidden_BW)
        source_BS, in_source_BS = two_sides.gathered(values_BL, keep_BL, width + 2, self.ids)
        whole_BW = np.concatenate([np.full_like(tokens_BW[:, :1], self.ids.bos), tokens_BW], axis=1)
        in_whole_BW = np.concatenate([real_BW[:, :1], real_BW], axis=1)
        target_BT, in_target_BT = two_sides.gathered(whole_BW, in_whole_BW, width + 2, self.ids)
        content_BT = np.zeros_like(in_target_BT)
        np.put_along_axis(content_BT, order_BW + 1, hidden_BW, axis=1)
        return two_sides.fields(
            source_BS, in_source_BS, target_BT, in_target_BT, content_BT, self.ids
        )

    def _order(self, starts_BW: np.ndarray, real_BW: np.ndarray, noise: RowNoise) -> np.ndarray:
        """Which token comes at each place of the shuffled text, int64 [B, W]; padding stays.

        Args:
          starts_BW: bool, first tokens of sentences.
          real_BW: bool, no padding.
        """
        sentence_BW = np.maximum(np.cumsum(starts_BW, axis=1) - 1, 0)
        key_BW = noise.uniform(_ORDER, starts_BW.shape[1])
        key_BW = np.take_along_axis(key_BW, sentence_BW, axis=1)
        return np.argsort(np.where(real_BW, key_BW, 2.0), axis=1, kind="stable")

    @cached_property
    def _poisson(self) -> np.ndarray:
        """Cumulative distribution of a span's length."""
        rate = self.mean_span_length
        length_N = np.arange(int(rate + 20 * math.sqrt(rate) + 20))
        log_N = length_N * math.log(rate) - rate - np.array([math.lgamma(n + 1) for n in length_N])
        return np.cumsum(np.exp(log_N))

    def _lengths(self, hidden_B: np.ndarray, most_B: np.ndarray, noise: RowNoise) -> np.ndarray:
        """Lengths of the spans in the order drawn, int64 [B, K]; -1: there is none.

        Args:
          hidden_B: words that they come to.
          most_B: the most spans there may be, at least 1 where something is to be hidden.
        """
        size = int(most_B.max(initial=1))
        drawn_BK = np.searchsorted(self._poisson, noise.uniform(_LENGTH, size), side="right")
        slot_K = np.arange(size)
        drawn_BK = np.where(slot_K == most_B[:, None] - 1, hidden_B[:, None], drawn_BK)
        end_BK = np.minimum(np.cumsum(drawn_BK, axis=1), hidden_B[:, None])
        begin_BK = np.concatenate([np.zeros_like(end_BK[:, :1]), end_BK[:, :-1]], axis=1)
        return np.where(begin_BK < hidden_B[:, None], end_BK - begin_BK, -1)

    def _infilled(
        self, starts_BW: np.ndarray, tokens_BW: np.ndarray, real_BW: np.ndarray, noise: RowNoise
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where masks go and what is hidden.

        Args:
          starts_BW: bool, first tokens of words; False in padding.
          tokens_BW, real_BW: the shuffled text, and which of it is no padding.

        Returns:
          bool [B, W + 1], a mask in front of this token (the last: behind the text, wherever that
          ends); bool [B, W], tokens that are hidden.
        """
        num_rows, width = tokens_BW.shape
        words_B = starts_BW.sum(axis=1)
        hidden_B = np.rint(words_B * self.mask_rate).astype(np.int64)
        most_B = np.minimum(hidden_B, words_B - hidden_B + 1)
        length_BK = self._lengths(hidden_B, most_B, noise)
        gap_BN = noise.uniform(_PLACE, width + 1)
        gap_BN = np.where(np.arange(width + 1) <= (words_B - hidden_B)[:, None], gap_BN, 2.0)
        place_BK = np.argsort(gap_BN, axis=1)[:, : length_BK.shape[1]]  # in any order
        place_BK = np.where(length_BK < 0, width + 1, place_BK)
        by_place_BK = np.argsort(place_BK, axis=1)
        place_BK = np.take_along_axis(place_BK, by_place_BK, axis=1)
        length_BK = np.take_along_axis(length_BK, by_place_BK, axis=1)
        used_BK = length_BK >= 0
        length_BK = np.where(used_BK, length_BK, 0)
        first_BK = place_BK + np.cumsum(length_BK, axis=1) - length_BK  # words in front of a span
        first_BK = np.where(used_BK, first_BK, width + 1)
        # By word; one column for what lies behind them, one for spans that are none.
        begins_BN = np.zeros((num_rows, width + 2), np.int8)
        ends_BN = np.zeros_like(begins_BN)
        np.put_along_axis(begins_BN, first_BK, 1, axis=1)
        np.put_along_axis(ends_BN, first_BK + length_BK, 1, axis=1)
        begins_BN[:, -1] = 0
        inside_BN = np.cumsum(begins_BN[:, :-1] - ends_BN[:, :-1], axis=1, dtype=np.int8) > 0
        # By token.
        word_BW = np.maximum(np.cumsum(starts_BW, axis=1) - 1, 0)
        hidden_BW = np.take_along_axis(inside_BN, word_BW, axis=1) & real_BW
        mask_BW = np.take_along_axis(begins_BN, word_BW, axis=1).astype(bool) & starts_BW
        behind_B1 = np.take_along_axis(begins_BN, words_B[:, None], axis=1) & real_BW[:, :1]
        mask_BL = np.concatenate([mask_BW, behind_B1.astype(bool)], axis=1)
        return self._around_special(tokens_BW, mask_BL, hidden_BW)

    def _around_special(
        self, tokens_BW: np.ndarray, mask_BL: np.ndarray, hidden_BW: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks and hidden tokens once the special ones have been taken out of the spans."""
        special_BW = hidden_BW & np.isin(tokens_BW, self.ids.special)
        if not special_BW.any():
            return mask_BL, hidden_BW
        mask_BL, mask_BW = mask_BL.copy(), mask_BL[:, :-1]
        met_BW = np.cumsum(special_BW, axis=1)
        before_BW = np.where(mask_BW, met_BW - special_BW, 0)
        kept_BW = hidden_BW & (met_BW == np.maximum.accumulate(before_BW, axis=1))
        mask_BL[:, :-1] = mask_BW & ~(hidden_BW & ~kept_BW)
        grows_B = mask_BL.sum(axis=1) > kept_BW.sum(axis=1)  # then nothing is inserted
        mask_BL[grows_B, :-1] &= kept_BW[grows_B]
        mask_BL[grows_B, -1] = False
        return mask_BL, kept_BW


def needs_pieces(config: Config) -> bool:
    """It goes by words and sentences."""
    del config
    return True


def describe(config: Config) -> Description:
    """What it says of itself."""
    objective = config.objective
    order = "; the sentences come in any order" * objective.permute_sentences
    gap = Gap((BEFORE, MASK, AFTER), (BEFORE,), (FILLING,))
    return Description(
        name="denoising",
        how=f"{percent(objective.mask_rate)} of the words are hidden, in spans of "
        f"{objective.mean_span_length:g} words on average, each behind one mask{order}; the "
        "decoder writes the whole text",
        does="restores a text of which masks hide parts",
        frame=(("bos",), ("eos",)),
        special=("bos", "cls", "sep", "mask"),
        left_out="what the encoder reads as well, begin and end tokens",
        prompts=(Prompt(("The weather is", MASK, " today."), "the whole text"),),
        gap=gap,
        continuation=gap,
    )


def make(config: Config, ids: Ids) -> Denoising:
    """The objective that `config` describes."""
    objective = config.objective
    return Denoising(
        seq_len=config.data.seq_len,
        ids=ids,
        mask_rate=objective.mask_rate,
        mean_span_length=objective.mean_span_length,
        permute_sentences=objective.permute_sentences,
    )
