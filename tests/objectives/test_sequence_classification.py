import numpy as np
import pytest
from labelled_examples import BOS, EOS, IDS, Words

from lmjax.errors import UserError
from lmjax.objectives import sequence_classification as module

LABELS = ("neg", "neutral", "pos")


def make(seq_len=16, **more):
    return module.SequenceClassification(seq_len, IDS, LABELS, **more)


def test_a_text_stands_between_special_tokens_and_predicts_at_the_first():
    words = Words()
    example = make().encode({"text": "a fine film", "label": "pos"}, words)
    assert example.row["inputs"].tolist() == [BOS, *words.ids("a fine film"), EOS]
    assert example.row["segment_ids"].tolist() == [1] * 5
    assert example.row["positions"].tolist() == [0, 1, 2, 3, 4]
    assert example.row["predict_at"].tolist() == [0]
    assert example.row["targets"].tolist() == [2]
    assert example.row["weights"].tolist() == [1.0]
    assert example.reference == "pos"
    assert example.needs == {"data.seq_len": 5}


def test_a_pair_tells_its_texts_apart():
    words = Words()
    record = {"text": "it rains", "text_pair": "all is wet", "label": "neutral"}
    row = make(token_types=True).encode(record, words).row
    first, second = words.ids("it rains"), words.ids("all is wet")
    assert row["inputs"].tolist() == [BOS, *first, EOS, *second, EOS]
    assert row["token_types"].tolist() == [0] * 4 + [1] * 4


def test_the_longer_text_is_cut_and_what_it_takes_is_said():
    words = Words()
    record = {"text": "one two", "text_pair": "three four five six seven eight", "label": "neg"}
    example = make(seq_len=8).encode(record, words)
    assert example.row["inputs"].tolist() == [
        BOS,
        *words.ids("one two"),
        EOS,
        *words.ids("three four five"),
        EOS,
    ]
    assert example.needs == {"data.seq_len": 11}


def test_the_likeliest_class_is_the_answer():
    words = Words()
    example = make().encode({"text": "a", "label": "neg"}, words)
    assert make().answer(np.array([[0.1, 3.0, -1.0]]), example, words) == "neutral"


def test_labels_are_those_of_the_examples_numbers_as_text():
    records = [{"label": 2}, {"label": "b"}, {"label": 2}, {"label": False}]
    assert module.labels(records) == ("2", "False", "b")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"label": "pos"}, "has no text, but the fields 'label'; name the one"),
        ({"text": "a", "label": "good"}, "label is 'good', and the examples of training have only"),
        ({"text": "a"}, "has no label"),
        ({"text": " \n", "label": "pos"}, "text is empty"),
        ({"text": 3, "label": "pos"}, "text is 3, not text"),
        ({"text": "a", "label": 0.5}, "label is 0.5, not the name of a class"),
    ],
)
def test_mistakes(record, said):
    with pytest.raises(UserError) as error:
        make().encode(record, Words())
    assert said in str(error.value)
