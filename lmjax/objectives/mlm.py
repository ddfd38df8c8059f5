"""Masked language modelling: predict a few hidden tokens from all others of their document.

Devlin et al. 2019 (BERT), section 3.1 and appendix A.2, with the dynamic masking of Liu et al. 2019
(RoBERTa, section 4.1): a window is masked anew in every epoch. A row is CLS, text, SEP; the text
may run over several documents, each ending with the separator, and nobody looks into another one.
No next-sentence prediction (RoBERTa, section 4.2).

Whole words are masked as in their code's later releases (`create_pretraining_data.py`): the pieces
of a word are chosen together or not at all. Words come in random order, one that would exceed the
number of pieces to predict is skipped, so a row may predict fewer. Where all words are longer than
that their code predicts nothing; such a row here is masked piece by piece.

Dimension key: B rows, W raw tokens of a window, T = W + 2 length, P predicted positions, N words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmjax.batch import Batch, Ids, Spec
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.noise import RowNoise
from lmjax.objectives.choose import choose, fill, positions
from lmjax.objectives.description import Description, percent
from lmjax.objectives.segments import segments
from lmjax.objectives.words import word_starts

NUM_SENTINELS = 0
ARCHITECTURE = "encoder"

_CHOICE, _KIND, _RANDOM_TOKEN = range(3)  # noise streams


@dataclass(frozen=True)
class MaskedLM:
    """Rows of `seq_len` ids; round(mask_rate x tokens) of the text's are predicted, at least one.

    Of those `mask_token_share` become the mask token, `random_token_share` any id that stands for
    text, each piece by itself, and the rest stay. Special ids are never chosen. With `whole_word`
    they are the pieces of whole words, at most as many, and `ids.pieces` must be there.

    Raises:
      UserError: a row has no room for text, or the tokenizer has no mask.
    """

    seq_len: int
    ids: Ids
    mask_rate: float = 0.15
    mask_token_share: float = 0.8
    random_token_share: float = 0.1
    whole_word: bool = False
    exact_likelihood = False
    joins_documents = False
    closes_rows = True

    def __post_init__(self) -> None:
        if self.seq_len < 3:
            raise UserError(
                f"config.data.seq_len={self.seq_len} leaves no room for text between the two "
                "special tokens of a masked-LM row; take 3 or more"
            )
        if self.ids.mask is None:
            raise UserError(
                "masked LM needs a mask token, and the tokenizer names none; take the tokenizer of "
                "an encoder (tokenizer.path)"
            )

    @property
    def window_length(self) -> int:
        return self.seq_len - 2

    @property
    def window_stride(self) -> int:
        return self.window_length

    @property
    def num_predicted(self) -> int:
        """P, what a row without any special token in its text predicts."""
        return int(self._count(np.array([self.window_length]))[0])

    @cached_property
    def _plain_ids(self) -> np.ndarray:
        """All ids that stand for text."""
        return np.setdiff1d(np.arange(self.ids.num_ids, dtype=np.int32), self.ids.special)

    def _count(self, candidates_B: np.ndarray) -> np.ndarray:
        count_B = np.rint(candidates_B * self.mask_rate).astype(np.int64)
        return np.clip(count_B, np.minimum(candidates_B, 1), candidates_B)

    def spec(self, num_rows: int) -> Spec:
        whole, predicted = (num_rows, self.seq_len), (num_rows, self.num_predicted)
        ints = dict.fromkeys(("inputs", "segment_ids", "positions"), (whole, np.int32))
        ints |= dict.fromkeys(("predict_at", "targets"), (predicted, np.int32))
        return ints | dict.fromkeys(("weights", "content_weights"), (predicted, np.float32))

    def places(self, length_N: np.ndarray) -> dict[str, np.ndarray]:
        length_N = np.asarray(length_N, np.int64)
        return {"inputs": length_N + 2, "targets": self._count(length_N)}

    def __call__(self, tokens_BW: np.ndarray, documents_BW: np.ndarray, noise: RowNoise) -> Batch:
        inputs_BT, documents_BT = self._rows(tokens_BW, documents_BW)
        candidates_BT = (documents_BT >= 0) & ~np.isin(inputs_BT, self.ids.special)
        count_B = self._count(candidates_BT.sum(axis=1))
        size = int(self._count(np.array(tokens_BW.shape[1])))
        if self.whole_word:
            starts_BT = word_starts(inputs_BT, documents_BT, self.ids.pieces)
            chosen_BT = self._whole_words(starts_BT, candidates_BT, count_B, noise)
            chosen_BP, used_BP = positions(chosen_BT, size)
        else:
            noise_BT = noise.uniform(_CHOICE, inputs_BT.shape[1])
            chosen_BP, used_BP = choose(noise_BT, candidates_BT, count_B, size)
        predict_at_BP = np.where(used_BP, chosen_BP, 0)
        hidden_BP = np.take_along_axis(inputs_BT, predict_at_BP, axis=1)
        shown_BP = np.where(used_BP, self._replaced(hidden_BP, noise), hidden_BP)
        np.put_along_axis(inputs_BT, predict_at_BP, shown_BP, axis=1)
        segment_ids_BT, positions_BT = segments(documents_BT)
        return {
            "inputs": inputs_BT,
            "segment_ids": segment_ids_BT,
            "positions": positions_BT,
            "predict_at": predict_at_BP.astype(np.int32),
            "targets": np.where(used_BP, hidden_BP, 0),
            "weights": used_BP.astype(np.float32),
            "content_weights": (used_BP & (shown_BP == self.ids.mask)).astype(np.float32),
        }

    def _rows(
        self, tokens_BW: np.ndarray, documents_BW: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """CLS, text, SEP, padding; CLS belongs to the first document, SEP to the last."""
        num_rows, width = tokens_BW.shape
        length_B1 = (documents_BW >= 0).sum(axis=1, keepdims=True)
        last_B1 = np.take_along_axis(documents_BW, np.maximum(length_B1 - 1, 0), axis=1)
        inputs_BT = np.full((num_rows, width + 2), self.ids.pad, np.int32)
        documents_BT = np.full((num_rows, width + 2), -1, np.int64)
        inputs_BT[:, 1:-1], documents_BT[:, 1:-1] = tokens_BW, documents_BW
        documents_BT[:, 0] = documents_BW[:, 0]
        inputs_BT[:, 0] = np.where(length_B1[:, 0] > 0, self.ids.bos, self.ids.pad)
        separator_B1 = np.where(length_B1 > 0, self.ids.eos, self.ids.pad)
        np.put_along_axis(inputs_BT, length_B1 + 1, separator_B1, axis=1)
        np.put_along_axis(documents_BT, length_B1 + 1, last_B1, axis=1)
        return inputs_BT, documents_BT

    def _whole_words(
        self,
        starts_BT: np.ndarray,
        candidates_BT: np.ndarray,
        count_B: np.ndarray,
        noise: RowNoise,
    ) -> np.ndarray:
        """Bool [B, T]: the chosen words' pieces."""
        word_BT, size_BN = _words(starts_BT, candidates_BT)
        smallest_B = np.where(size_BN > 0, size_BN, self.seq_len).min(axis=1)
        if (none_fits_B := smallest_B > count_B).any():
            starts_BT = starts_BT | none_fits_B[:, None]
            word_BT, size_BN = _words(starts_BT, candidates_BT)
        chosen_BN = fill(noise.uniform(_CHOICE, size_BN.shape[1]), size_BN, count_B)
        return np.take_along_axis(chosen_BN, word_BT, axis=1) & candidates_BT

    def _replaced(self, hidden_BP: np.ndarray, noise: RowNoise) -> np.ndarray:
        """What stands in the place of each hidden token: the mask, a random token or itself."""
        size = hidden_BP.shape[1]
        kind_BP = noise.uniform(_KIND, size)
        drawn_BP = (noise.uniform(_RANDOM_TOKEN, size) * len(self._plain_ids)).astype(np.int64)
        random_BP = kind_BP < self.mask_token_share + self.random_token_share
        shown_BP = np.where(random_BP, self._plain_ids[drawn_BP], hidden_BP)
        return np.where(kind_BP < self.mask_token_share, np.int32(self.ids.mask), shown_BP)


def _words(starts_BT: np.ndarray, candidates_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the word that each position is in, and candidates in each word, [B, N]."""
    word_BT = np.maximum(np.cumsum(starts_BT, axis=1) - 1, 0)
    shape = len(word_BT), int(word_BT.max(initial=0)) + 1
    cell_BT = np.arange(shape[0])[:, None] * shape[1] + word_BT
    size = np.bincount(cell_BT[candidates_BT], minlength=shape[0] * shape[1])
    return word_BT, size.reshape(shape)


def needs_pieces(config: Config) -> bool:
    """Whether the objective that `config` describes asks where words begin."""
    return config.objective.whole_word


def describe(config: Config) -> Description:
    """What it says of itself."""
    objective = config.objective
    words = ", in whole words," * objective.whole_word
    return Description(
        name="masked language modelling",
        how=f"{percent(objective.mask_rate)} of the tokens{words} are predicted; "
        f"{percent(objective.mask_token_share)} of these are shown as the mask, "
        f"{percent(objective.random_token_share)} as a random token, the rest as they are",
        does="fills masked places of a text",
        frame=(("bos",), ("eos",)),
        special=("bos", "cls", "sep", "mask"),
        left_out="chosen tokens that were shown unchanged or replaced by random ones",
    )


def make(config: Config, ids: Ids) -> MaskedLM:
    """The objective that `config` describes."""
    objective = config.objective
    return MaskedLM(
        seq_len=config.data.seq_len,
        ids=ids,
        mask_rate=objective.mask_rate,
        mask_token_share=objective.mask_token_share,
        random_token_share=objective.random_token_share,
        whole_word=objective.whole_word,
    )
