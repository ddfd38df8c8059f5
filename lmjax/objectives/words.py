"""Where words and sentences begin in rows of tokens, by the votes of `lmjax.batch.Pieces`.

Dimension key: B rows, W tokens of a row.
"""

from __future__ import annotations

import numpy as np

from lmjax.batch import BOUNDARY, Pieces


def word_starts(tokens_BW: np.ndarray, documents_BW: np.ndarray, pieces: Pieces) -> np.ndarray:
    """Where words begin; a special id is a word by itself, and so begins one behind it.

    Args:
      tokens_BW: int32, ids below the rows of `pieces`.
      documents_BW: int64, index of the document; -1: padding, at the end.
      pieces: of the tokenizer.

    Returns:
      bool [B, W]; a row and a document begin with a word, padding has none.
    """
    ends_BW, starts_BW = pieces.ends_word[tokens_BW], pieces.starts_word[tokens_BW]
    found_BW = _first_of_document(documents_BW)
    found_BW[:, 1:] |= ends_BW[:, :-1] + starts_BW[:, 1:] >= BOUNDARY
    return found_BW & (documents_BW >= 0)


def sentence_starts(tokens_BW: np.ndarray, documents_BW: np.ndarray, pieces: Pieces) -> np.ndarray:
    """Where sentences begin: with a document, and where the one before has ended.

    Quotes and brackets that close directly behind a full stop belong to its sentence; so does a
    special id. Arguments and result as of `word_starts`.
    """
    ends_BW, starts_BW = pieces.ends_sentence[tokens_BW], pieces.starts_sentence[tokens_BW]
    found_BW = _first_of_document(documents_BW)
    ends_BW = _carried(ends_BW, (starts_BW < 0) & ~found_BW)
    found_BW[:, 1:] |= ends_BW[:, :-1] + starts_BW[:, 1:] >= BOUNDARY
    return found_BW & (documents_BW >= 0)


def _first_of_document(documents_BW: np.ndarray) -> np.ndarray:
    first_BW = np.ones(documents_BW.shape, bool)
    np.not_equal(documents_BW[:, 1:], documents_BW[:, :-1], out=first_BW[:, 1:])
    return first_BW


def _carried(ends_BW: np.ndarray, belongs_BW: np.ndarray) -> np.ndarray:
    """Ends handed on to what belongs to them; few tokens do, so they are walked along."""
    ends, belongs = ends_BW.ravel(), belongs_BW.ravel()
    at = np.flatnonzero(belongs)
    while (at := at[belongs[at] & (ends[at - 1] > ends[at])]).size:
        ends[at] = ends[at - 1]
        at = at[at + 1 < ends.size] + 1
    return ends.reshape(ends_BW.shape)
