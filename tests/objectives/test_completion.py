import pytest
from labelled_examples import EOS, IDS, Words

from lmjax import config as config_lib
from lmjax import fields as fields_lib
from lmjax.errors import UserError
from lmjax.objectives import completion as module

RECORD = {"prompt": "where is it ?", "completion": " in Oslo"}


def make(seq_len=16, target_length=5, **more):
    return module.Completion(seq_len, target_length, IDS, **more)


def test_only_the_answer_and_its_end_are_learned():
    words = Words()
    example = make().encode(RECORD, words)
    prompt, answer = words.ids("where is it ?").tolist(), words.ids(" in Oslo").tolist()
    assert example.row["inputs"].tolist() == prompt + answer
    assert example.row["targets"].tolist() == [*prompt[1:], *answer, EOS]
    assert example.row["weights"].tolist() == [0, 0, 0, 1, 1, 1]
    assert make().prompt(example).tolist() == prompt
    assert example.reference == "in Oslo"
    assert make().answer(words.ids(" in Oslo"), example, words) == "in Oslo"


def test_a_long_prompt_keeps_its_end():
    words = Words()
    example = make(seq_len=5).encode(RECORD, words)
    assert example.row["inputs"].tolist() == words.ids("where is it ? in Oslo")[1:].tolist()
    assert example.row["targets"].tolist()[-1] == EOS
    assert make().prompt(example).tolist() == words.ids("where is it ?")[1:].tolist()
    assert example.needs == {"data.seq_len": 6, "objective.target_length": 3}


def test_an_answer_that_fills_the_row_leaves_a_token_to_answer():
    words = Words()
    record = {"prompt": "a b", "completion": " c d e f g h"}
    example = make(seq_len=4).encode(record, words)
    assert example.row["inputs"].tolist() == words.ids("a b c d e")[1:].tolist()
    assert example.row["weights"].tolist() == [1, 1, 1, 1]


def test_answers_as_long_as_the_row_are_refused():
    changes = {"objective.target_length": 64, "data.seq_len": 64}
    with pytest.raises(UserError, match="target_length=64 leaves no room for a prompt"):
        module.make(fields_lib.replace(config_lib.Config(), changes), IDS)


def test_mistakes():
    with pytest.raises(UserError, match="prompt is empty"):
        make().encode({"prompt": " ", "completion": "a"}, Words())
