"""Choices made from documents: where passages come from, that they differ, that seeds decide."""

import json
import re

import pytest

from lmjax.data import choices, chunks
from lmjax.errors import UserError

SIZES = {"context_words": 12, "choice_words": 4}


def words(name, count):
    return " ".join(f"{name}{i}" + "\n" * (i % 9 == 0) for i in range(count))


@pytest.fixture
def text(tmp_path):
    """Documents of 10 to 310 words, no word twice."""
    file = tmp_path / "text.jsonl"
    texts = [words(f"d{n}_", 10 + 20 * n) for n in range(16)]
    file.write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts))
    return [str(file)], texts


def test_the_right_choice_follows_and_no_two_overlap(text):
    files, texts = text
    items = choices.make(files, 40, seed=0, **SIZES)
    assert len(items) == 40
    for item in items:
        number = int(item["id"].split("-")[0])
        assert item["context"] + item["choices"][item["answer"]] in texts[number]
        found = [re.findall(r"\S+", t) for t in (item["context"], *item["choices"])]
        assert [len(passage) for passage in found] == [12, 4, 4, 4, 4]
        assert len({word for passage in found for word in passage}) == 28
        assert all(" ".join(texts[number].split()).count(" ".join(p)) == 1 for p in found)
    assert len({item["id"] for item in items}) == 40
    assert {item["answer"] for item in items} == {0, 1, 2, 3}


def test_every_document_once_before_one_is_asked_twice(text):
    files, _ = text
    items = choices.make(files, 10, seed=0, **SIZES)
    assert len({item["id"].split("-")[0] for item in items}) == 10
    assert len(choices.make(files, 10_000, seed=0, **SIZES)) > 40


def test_a_seed_decides(text):
    files, _ = text
    made = [choices.make(files, 20, seed=seed, **SIZES) for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


def test_documents_that_training_held_out(text):
    files, texts = text
    items = choices.make(files, 1000, seed=0, eval_fraction=0.5, **SIZES)
    used = {int(item["id"].split("-")[0]) for item in items}
    held_out = {n for n, t in enumerate(texts) if chunks.document_hash(t.encode()) < 2**63}
    assert used == {n for n in held_out if n > 1}


def test_passages_that_repeat_are_left_out(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("again " * 500)
    with pytest.raises(UserError, match="no document has the 32 words"):
        choices.make([str(file)], 10, seed=0, **SIZES)
