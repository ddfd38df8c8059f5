import numpy as np
import pytest
from labelled_examples import BOS, EOS, IDS, Words

from lmjax.errors import UserError
from lmjax.objectives import token_classification as module

LABELS = ("B-place", "I-place", "O")
RECORD = {"tokens": ["in", "New-York", "now"], "tags": ["O", "B-place", "O"]}


def make(seq_len=16):
    return module.TokenClassification(seq_len, IDS, LABELS)


def test_a_word_predicts_its_tag_at_its_first_piece():
    words = Words()
    example = make().encode(RECORD, words)
    pieces = words.ids("in New-York now")
    assert len(pieces) == 5  # New, -, York
    assert example.row["inputs"].tolist() == [BOS, *pieces, EOS]
    assert example.row["weights"].tolist() == [0, 1, 1, 0, 0, 1, 0]
    assert example.row["targets"].tolist() == [0, 2, 0, 0, 0, 2, 0]
    assert example.reference == ["O", "B-place", "O"]


def test_answers_are_read_where_words_begin():
    words = Words()
    example = make().encode(RECORD, words)
    logits = np.zeros((16, 3))
    logits[[1, 2, 5], [2, 1, 0]] = 1
    logits[[3, 4], [0, 0]] = 9  # of pieces that begin no word
    assert make().answer(logits, example, words) == ["O", "I-place", "B-place"]


def test_words_that_were_cut_away_are_outside():
    words = Words()
    objective = make(seq_len=4)  # bos, in, New, eos
    example = objective.encode(RECORD, words)
    assert example.row["inputs"].tolist() == [BOS, *words.ids("in New-York now")[:2], EOS]
    assert example.row["weights"].tolist() == [0, 1, 1, 0]
    logits = np.zeros((4, 3))
    logits[1:3, 1] = 1
    assert objective.answer(logits, example, words) == ["I-place", "I-place", "O"]
    assert example.needs == {"data.seq_len": 7}


def test_labels_are_the_tags_of_the_examples():
    assert module.labels([RECORD, {"tokens": ["x"], "tags": ["I-place"]}]) == LABELS


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"tokens": ["a"], "tags": ["O", "O"]}, "has 1 tokens and 2 tags"),
        ({"tokens": "a b", "tags": ["O", "O"]}, 'tokens is "a b", not a list of strings'),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, 'tokens[1] is " ", not text'),
        ({"tokens": ["a"], "tags": ["B-dog"]}, "tags[0] is 'B-dog', and the examples of training"),
        ({"tokens": [], "tags": []}, "tokens is [], not a list of strings"),
    ],
)
def test_mistakes(record, said):
    with pytest.raises(UserError) as error:
        make().encode(record, Words())
    assert said in str(error.value)
