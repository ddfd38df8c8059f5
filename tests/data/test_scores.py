"""Rounded scores: nothing else of a model changes, and a text has the ids of its parts."""

import io
from pathlib import Path

import numpy as np
import pytest
import sentencepiece as spm

from lmjax.data import files, scores, tokenizer


@pytest.fixture(scope="module")
def text():
    return Path(files.find_files("bundled:corpus_small")[0]).read_text("utf-8")


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_only_scores_change(model_type, text):
    trained = io.BytesIO()
    lines = [line[:500] for line in text[:100_000].split("\n")]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=trained,
        vocab_size=500,
        model_type=model_type,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=3,
    )
    rounded = scores.rounded(trained.getvalue())
    before, after = (
        spm.SentencePieceProcessor(model_proto=content) for content in (trained.getvalue(), rounded)
    )
    assert len(rounded) == len(trained.getvalue())
    assert scores.rounded(rounded) == rounded
    for i in range(before.vocab_size()):
        assert after.id_to_piece(i) == before.id_to_piece(i)
        assert after.is_byte(i) == before.is_byte(i)
        assert after.get_score(i) * scores.PER_NAT % 1 == 0
        difference = abs(after.get_score(i) - before.get_score(i))
        assert difference <= (0 if model_type == "bpe" else 0.5 / scores.PER_NAT)


def test_trained_models_are_rounded(any_tokenizer, text):
    model = tokenizer.load(any_tokenizer)
    found = [score for _, score in model.pieces if score is not None]
    assert len(found) == model.vocab_size - 261
    assert all(score * scores.PER_NAT % 1 == 0 for score in found)
    # 16,384 characters: as a whole and in small parts.
    some = text[: tokenizer.MAX_PIECE_CHARS]
    parts = [model.encode(part) for part in tokenizer.cut(some, 100)]
    assert np.array_equal(model.encode(some), np.concatenate(parts))
