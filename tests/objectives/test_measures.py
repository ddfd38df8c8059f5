"""Measures against the libraries that define them; intervals against a plain bootstrap."""

import numpy as np
import pytest

from lmjax.objectives import measures

CLASSES = ["pos", "neg", "neutral"]
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "it", "was", "not", "amused", "at", "all"]


def by_name(found):
    return {measure.name: measure for measure in found}


def random_texts(seed, count=60):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 12))) for _ in range(count)]


def random_tags(seed, count=40):
    generator = np.random.default_rng(seed)
    tags = ["O", "B-a", "I-a", "B-b", "I-b"]
    lengths = np.random.default_rng(0).integers(1, 9, count)
    return [list(map(str, generator.choice(tags, length))) for length in lengths]


def assert_bootstrap_agrees(measure, whole):
    """`whole(items)` is the library's number for some of the items."""
    count = len(measure.numbers_NS)
    assert measure.value == pytest.approx(whole(np.arange(count)), abs=1e-9)
    drawn = measures.draws(count, 5)
    found = measure.resampled(drawn)
    for counts, value in zip(drawn, found, strict=True):
        items = np.repeat(np.arange(count), counts.astype(int))
        assert value == pytest.approx(whole(items), abs=1e-9)
    low, high = measure.interval()
    assert low <= measure.value <= high
    assert low < high


@pytest.mark.filterwarnings("ignore")  # of classes that a draw does not have
def test_classes_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score

    generator = np.random.default_rng(0)
    right = generator.choice(CLASSES, 80, p=[0.6, 0.3, 0.1])
    said = np.where(generator.random(80) < 0.6, right, generator.choice(CLASSES, 80))
    found = by_name(measures.classes(said.tolist(), right.tolist()))
    assert_bootstrap_agrees(found["accuracy"], lambda i: accuracy_score(right[i], said[i]))
    assert_bootstrap_agrees(
        found["f1"], lambda i: f1_score(right[i], said[i], average="macro", zero_division=0)
    )


@pytest.mark.filterwarnings("ignore")
def test_entities_are_those_of_seqeval():
    from seqeval.metrics import accuracy_score, f1_score

    said, right = random_tags(1), random_tags(2)
    found = by_name(measures.entities(said, right))
    chosen = lambda texts, items: [texts[i] for i in items]
    for name, score in (("accuracy", accuracy_score), ("f1", f1_score)):
        assert_bootstrap_agrees(
            found[name], lambda i, score=score: score(chosen(right, i), chosen(said, i))
        )


def test_a_model_that_finds_nothing_has_an_f1_of_0():
    found = by_name(measures.entities([["O", "O"]], [["B-a", "O"]]))
    assert found["f1"].value == 0
    assert found["accuracy"].value == 0.5


def test_texts_are_those_of_sacrebleu_and_rouge_score():
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, CHRF

    said, right = random_texts(1), random_texts(2)
    said[:9] = right[:9]
    found = by_name(measures.texts(said, right))
    chosen = lambda texts, items: [texts[i] for i in items]
    rouge = RougeScorer(["rougeL"])
    assert_bootstrap_agrees(
        found["rougeL"],
        lambda i: np.mean([rouge.score(right[k], said[k])["rougeL"].fmeasure for k in i]),
    )
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        assert_bootstrap_agrees(
            found[name],
            lambda i, metric=metric: metric.corpus_score(chosen(said, i), [chosen(right, i)]).score,
        )


def test_answers_count_as_in_squad():
    found = by_name(
        measures.answers(
            ["The Cat!", "a cat and dog", "", "", "cat"],
            [["cat", "x"], ["cat", "the dog cat"], [""], ["cat"], ["dog"]],
        )
    )
    assert found["exact_match"].value == pytest.approx(2 / 5)
    assert found["f1"].value == pytest.approx((1 + 0.8 + 1 + 0 + 0) / 5)


def test_an_interval_holds_the_truth_about_19_times_in_20():
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = measures.mean("x", generator.random(100) < 0.7).interval()
        held += low <= 0.7 <= high
    assert 178 <= held <= 199


def test_draws_are_always_the_same_and_of_as_many_items():
    assert np.array_equal(measures.draws(7), measures.draws(7))
    assert (measures.draws(7).sum(axis=1) == 7).all()


def test_rows_have_the_value_and_both_ends():
    row = measures.row([measures.mean("accuracy", [1, 1, 0, 1])])
    assert list(row) == ["accuracy", "accuracy_low", "accuracy_high"]
    assert row["accuracy"] == 0.75
