"""The batch contract: what objectives make, models read and the loss weighs.

A batch is a flat dict of arrays. Dimension key: B rows, T length of the sequence that predicts,
S length of an encoder's beside it, P predicted positions per row (P = T without `predict_at`).

- `inputs` [B, T] int32: ids the model reads.
- `segment_ids` [B, T] int32: 1, 2, ... per document of the row; 0 is padding.
- `positions` [B, T] int32: 0, 1, ... within each segment.
- `predict_at` [B, P] int32, only where some positions predict: which ones, ascending; an unused
  slot, after the used ones, is 0, its target 0 and its weights 0.
- `targets` [B, P] int32: ids to predict; what a classifier's head predicts instead are classes,
  and of a span the positions of its first and its last token (P = 2).
- `weights` [B, P] float32: weight of each prediction in the loss; 0 for none.
- `content_weights` [B, P] float32: the same, only where the answer was not given away: masked LM
  without the pieces that were kept or replaced, span corruption without sentinels and eos.

Encoder-decoders also have their encoder's side; `inputs` are then the targets shifted right:

- `enc_inputs`, `enc_segment_ids`, `enc_positions` [B, S] int32: as above.

Where rows have two texts and the model tells their tokens apart there is also

- `token_types` [B, T] int32: 0 in the first, 1 in the second.

Where a run mixes several sources of text there is also

- `source` [B] int32: which of them the row is from.

Fields whose name starts with `INFO_PREFIX` stay on the host:

- `info/row` [B] int64: running number of the row over all epochs.
- `info/window` [B] int64: which row of its source it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lmjax.noise import RowNoise

Batch = dict[str, np.ndarray]
Spec = dict[str, tuple[tuple[int, ...], Any]]

INFO_PREFIX = "info/"
SOURCE = "source"


BOUNDARY = 2


@dataclass(frozen=True, eq=False)
class Pieces:
    """What each id says of words and sentences: votes, int8 [num_rows].

    Between two neighbours a word (a sentence) begins where the vote of the left one in `ends_word`
    (`ends_sentence`) and of the right one in `starts_word` (`starts_sentence`) add up to `BOUNDARY`
    or more. A vote of 2 settles it, 0 leaves it to the other, -4 forbids it, 8 overrules that.

    Attributes:
      ends_word, starts_word: as above; special ids always are words by themselves.
      ends_sentence: 2 after a full stop of Chinese, 1 after one of English, which ends a sentence
        only where white space follows.
      starts_sentence: 1: begins with white space; -4: belongs to what stands before it.
      segmented: scripts without spaces whose words the text marks, and how many pieces of them
        there are.
      unsegmented: those whose pieces count as words.
    """

    ends_word: np.ndarray
    starts_word: np.ndarray
    ends_sentence: np.ndarray
    starts_sentence: np.ndarray
    segmented: tuple[tuple[str, int], ...] = ()
    unsegmented: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Ids:
    """The ids that mean something by themselves.

    Attributes:
      num_ids: ids that the tokenizer has; they count from 0.
      num_rows: rows of the embedding.
      pad, eos, unk, bos, mask: eos also separates documents and is BERT's SEP, bos is its CLS; an
        imported tokenizer may have no unk and no mask.
      special: all ids that stand for no text.
      first_sentinel, num_sentinels: those of span corruption count down from the first; None: from
        the last row, where the model has kept rows for them.
      decoder_start: what the decoder beside an encoder reads first.
      pieces: where words and sentences begin, for an objective that asks.
    """

    num_ids: int
    num_rows: int
    pad: int = 0
    eos: int = 1
    unk: int | None = 2
    bos: int = 3
    mask: int | None = 4
    special: tuple[int, ...] = (0, 1, 2, 3, 4)
    first_sentinel: int | None = None
    num_sentinels: int | None = None
    decoder_start: int = 0
    pieces: Pieces | None = field(default=None, compare=False, repr=False)

    def sentinel(self, number: int | np.ndarray) -> int | np.ndarray:
        """Id of sentinel 0, 1, ...; it is its own inverse: number of the sentinel with an id."""
        first = self.num_rows - 1 if self.first_sentinel is None else self.first_sentinel
        return first - number


class Objective(Protocol):
    """What makes batches: a frozen object, pure numpy, all rows at once.

    - `window_length`, `window_stride`: raw tokens in a window, and from one window to the next.
    - `exact_likelihood`: its loss is the log-likelihood of the text, so bits per byte mean
      something.
    - `joins_documents`: it takes a window for one text, whatever documents are in it.
    - `closes_rows`: it puts an end token of its own behind the text of a row, so that a document
      that has a row, or a part of one, to itself comes without its own.
    """

    window_length: int
    window_stride: int
    exact_likelihood: bool
    joins_documents: bool
    closes_rows: bool

    def spec(self, num_rows: int) -> Spec:
        """Shape and dtype of every device field, known before any data is read."""
        ...

    def places(self, length_N: np.ndarray) -> dict[str, np.ndarray]:
        """The most places that texts of so many raw tokens, one document each, take.

        Args:
          length_N: integers, at most `window_stride`.

        Returns:
          Field of `spec` -> int64 [N], places of its second axis: "inputs", "enc_inputs" beside an
          encoder, "targets" where only some positions predict.
        """
        ...

    def __call__(self, tokens_BW: np.ndarray, documents_BW: np.ndarray, noise: RowNoise) -> Batch:
        """Windows [B, W] of tokens (int32) and document indices (int64, -1: padding) -> batch.

        W is `window_length` for the shapes of `spec`. A narrower window makes a narrower batch,
        the same wherever there is text.
        """
        ...


class Encoder(Protocol):
    """Text -> ids, as the text of pre-training went that way."""

    def clean(self, text: str) -> str:
        """The text as it is encoded: in Unicode's form C, with line ends alike."""
        ...

    def ids(self, text: str) -> np.ndarray:
        """Ids of a text, int32 [length]."""
        ...

    def spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The same of a clean text, and where each is in it: int64 [length, 2] of characters."""
        ...

    def decode(self, ids: np.ndarray) -> str:
        """The text of ids."""
        ...


@dataclass(frozen=True, eq=False)
class Example:
    """A labelled example.

    Attributes:
      row: fields of a batch without their first dim, not padded.
      reference: what is right, in the form that JSON keeps.
      needs: places that it would take uncut, by the name of the config's field that limits them.
      context: what `LabelledObjective.answer` needs to put an answer in the form of `reference`.
    """

    row: Batch
    reference: Any
    needs: Mapping[str, int]
    context: Any = None


class LabelledObjective(Protocol):
    """What makes rows of labelled examples, one each, and reads a model's answers.

    - `window_length`: ids that a row reads.
    - `num_classes`: what `targets` count.
    - `writes`: ids that the model may write as its answer; None: a head's logits say it.
    """

    window_length: int
    exact_likelihood: bool
    num_classes: int
    writes: int | None

    def spec(self, num_rows: int) -> Spec:
        """As of `Objective`."""
        ...

    def encode(self, record: Mapping[str, Any], encoder: Encoder) -> Example:
        """The example of a JSON object whose fields have their own names.

        Raises:
          UserError: a field is missing, empty or of the wrong kind, or a label is unknown.
        """
        ...

    def prompt(self, example: Example) -> np.ndarray:
        """Where the model writes: the ids that it reads, without those of the answer."""
        ...

    def answer(self, output: np.ndarray, example: Example, encoder: Encoder) -> Any:
        """What the model says: of logits [P, C], or of the ids that it wrote."""
        ...


def padding_row(objective: Objective) -> Batch:
    """A row [1, ...] of nothing but padding, as `objective` makes it."""
    empty_1W, zero_1 = np.zeros((1, objective.window_length), np.int32), np.zeros(1, np.int64)
    return objective(empty_1W, empty_1W - np.int64(1), RowNoise(0, zero_1, zero_1))


def device_fields(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a batch that goes to the device."""
    return {k: v for k, v in batch.items() if not k.startswith(INFO_PREFIX)}


def rows(batch: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Rows [start, stop) of every field."""
    return {k: v[start:stop] for k, v in batch.items()}


def num_real_tokens(batch: Mapping[str, Any], axis: int | None = None) -> Any:
    """Number of ids that are no padding, in all or (axis 1) of each row: integers, as the batch."""
    return sum((v > 0).sum(axis=axis) for k, v in batch.items() if k.endswith("segment_ids"))


def check(batch: Mapping[str, np.ndarray], spec: Spec) -> None:
    """Raises ValueError unless every field of `spec` is there with its shape and dtype."""
    for name, (shape, dtype) in spec.items():
        array = batch[name]
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"batch field {name}: got {array.dtype}{list(array.shape)}, "
                f"the contract says {np.dtype(dtype)}{list(shape)}"
            )
