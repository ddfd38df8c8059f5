import numpy as np
import pytest
from labelled_examples import BOS, EOS, IDS, Words

from lmjax.errors import UserError
from lmjax.objectives import span_extraction as module

CONTEXT = "Oslo, Norway: cold. Rome, Italy: warm."
RECORD = {
    "question": "Where is it warm?",
    "context": CONTEXT,
    "answers": {"text": ["Rome, Italy", "Rome"], "answer_start": [20, 20]},
}


def make(seq_len=32, **more):
    return module.SpanExtraction(seq_len, IDS, **more)


def logits(start, end, length=32):
    found = np.zeros((2, length))
    found[0, start] = found[1, end] = 5
    return found


def test_question_and_text_share_a_row_and_the_answer_has_two_ends():
    words = Words()
    example = make(token_types=True).encode(RECORD, words)
    question, context = words.ids(RECORD["question"]), words.ids(CONTEXT)
    row = example.row
    assert row["inputs"].tolist() == [BOS, *question, EOS, *context, EOS]
    first, last = row["targets"]
    assert words.decode(row["inputs"][first : last + 1]) == " Rome, Italy"
    assert row["weights"].tolist() == [1, 1]
    assert row["token_types"].tolist() == [0] * (len(question) + 2) + [1] * (len(context) + 1)
    assert example.reference == ["Rome, Italy", "Rome"]


def test_the_right_logits_give_the_right_answer():
    words = Words()
    example = make().encode(RECORD, words)
    assert make().answer(logits(*example.row["targets"]), example, words) == "Rome, Italy"


def test_the_best_pair_in_order_within_the_text_is_the_answer():
    words = Words()
    example = make().encode(RECORD, words)
    first, last = example.row["targets"].tolist()
    backwards = logits(last, first)  # an end before its beginning
    backwards[1, last] = 4.9
    assert make().answer(backwards, example, words) == "Italy"
    in_question = logits(2, 3)
    in_question[0, first] = in_question[1, last] = 1
    assert make().answer(in_question, example, words) == "Rome, Italy"


def test_no_answer_is_the_first_token():
    words = Words()
    record = RECORD | {"answers": {"text": [], "answer_start": []}}
    example = make().encode(record, words)
    assert example.row["targets"].tolist() == [0, 0]
    assert example.reference == [""]
    assert make().answer(logits(0, 0), example, words) == ""


def test_an_answer_that_was_cut_away_teaches_nothing():
    words = Words()
    example = make(seq_len=14).encode(RECORD, words)
    assert example.row["weights"].tolist() == [0, 0]
    assert example.needs["data.seq_len"] > 14
    assert make(seq_len=14).answer(logits(7, 7, 14), example, words) in ("Oslo", ",", "Norway")


def test_characters_are_counted_in_the_text_as_given():
    words = Words()  # its clean text is shorter: line ends of one character
    context = f"One.\r\nTwo.\r\n{CONTEXT}"
    record = RECORD | {"context": context, "answers": {"text": ["cold"], "answer_start": [26]}}
    example = make(seq_len=40).encode(record, words)
    first, last = example.row["targets"]
    assert words.decode(example.row["inputs"][first : last + 1]) == " cold"
    assert make(40).answer(logits(first, last, 40), example, words) == "cold"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answers": {"text": ["Rome"], "answer_start": [3]}}, "is not at character 3"),
        ({"answers": "Rome"}, "answers is \"Rome\"; give {'text': [TEXT, ...]"),
        ({"answers": {"text": ["Rome"], "answer_start": []}}, "answers is {"),
        ({"question": ""}, "question is empty"),
        ({"context": None}, "has no context"),
    ],
)
def test_mistakes(change, said):
    with pytest.raises(UserError) as error:
        make().encode(RECORD | change, Words())
    assert said in str(error.value)
