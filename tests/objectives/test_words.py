"""Where words and sentences begin, against a slow reading of the votes."""

import numpy as np

from lmjax.batch import BOUNDARY, Pieces
from lmjax.objectives.words import sentence_starts, word_starts

NUM_IDS = 60


def make_pieces(rng):
    draw = lambda *votes: rng.choice(np.array(votes, np.int8), NUM_IDS)
    return Pieces(
        ends_word=draw(0, 0, 2, -4, 8),
        starts_word=draw(0, 0, 2, -4, 8),
        ends_sentence=draw(0, 0, 1, 2),
        starts_sentence=draw(0, 0, 1, -4),
    )


def make_rows(rng, num_rows, width):
    """Tokens of many short documents, some rows partly or wholly padding."""
    tokens = rng.integers(0, NUM_IDS, (num_rows, width)).astype(np.int32)
    documents = 3 + np.cumsum(rng.random(tokens.shape) < 0.1, axis=1)
    length = np.where(rng.random(num_rows) < 0.3, rng.integers(0, width, num_rows), width)
    return tokens, np.where(np.arange(width) < length[:, None], documents, -1)


def read(tokens, documents, pieces):
    """Words and sentences of one row."""
    words, sentences, ended = [], [], 0
    for i, (token, document) in enumerate(zip(tokens, documents, strict=True)):
        first = i == 0 or document != documents[i - 1]
        left = pieces.ends_word[tokens[i - 1]]
        words.append(document >= 0 and (first or left + pieces.starts_word[token] >= BOUNDARY))
        begins = pieces.starts_sentence[token]
        sentences.append(document >= 0 and (first or ended + begins >= BOUNDARY))
        belongs = begins < 0 and not first
        ended = max(pieces.ends_sentence[token], ended if belongs else 0)
    return words, sentences


def test_rows_are_read_as_one_by_one():
    rng = np.random.default_rng(0)
    pieces = make_pieces(rng)
    tokens, documents = make_rows(rng, 3000, 24)
    words = word_starts(tokens, documents, pieces)
    sentences = sentence_starts(tokens, documents, pieces)
    assert words.dtype == sentences.dtype == bool
    expected = [read(*row, pieces) for row in zip(tokens.tolist(), documents.tolist(), strict=True)]
    assert words.tolist() == [w for w, _ in expected]
    assert sentences.tolist() == [s for _, s in expected]
    assert 0.2 < words[documents >= 0].mean() < 0.9
    assert 0.1 < sentences[documents >= 0].mean() < 0.5
    columns_first = np.asfortranarray(tokens)
    assert np.array_equal(sentence_starts(columns_first, documents, pieces), sentences)


def test_rows_without_tokens():
    pieces = make_pieces(np.random.default_rng(0))
    for shape in ((0, 5), (4, 3)):
        tokens, documents = np.zeros(shape, np.int32), np.full(shape, -1)
        assert not word_starts(tokens, documents, pieces).any()
        assert sentence_starts(tokens, documents, pieces).shape == shape
