"""Prompts of the three kinds of models, what they may write, and the text of it."""

import numpy as np
import pytest
from random_run import make_config, make_tokenizer

from lmjax.data.tokenizer import IdsTokenizer
from lmjax.errors import UserError
from lmjax.infer.prompts import Prompts
from lmjax.infer.stop import StopStrings

ROWS, PAD, EOS, UNK, BOS, MASK = 640, 0, 1, 2, 3, 4
MIXTURE = (("span_corruption", 1.0, ()), ("denoising", 2.0, ()))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("prompts") / "tok")


@pytest.fixture
def make(tokenizer):
    def prompts(family, objective, tokenizer=tokenizer, begin=EOS):
        return Prompts.of(make_config(family, objective), tokenizer, begin)

    return prompts


def test_a_decoder_goes_on_behind_the_end_of_the_document_before(make, tokenizer):
    prompts = make("gpt2", "clm")
    text = "Call me <mask>\r\n<extra_id_0>"
    ids = tokenizer.encode(text.replace("\r\n", "\n")).tolist()
    asked = prompts({"prompt": text})
    assert (asked.ids.tolist(), asked.has_spans) == ([EOS, *ids], False)
    assert prompts({"prompt": ""}).ids.tolist() == [EOS]
    assert prompts({"prompt_ids": []}).ids.tolist() == [EOS]
    assert prompts({"prompt_ids": [7, 8]}).ids.tolist() == [7, 8]


def test_sentinels_are_spelled(make, tokenizer):
    prompts = make("t5", "span_corruption")
    encode = lambda text: tokenizer.encode(text).tolist()
    wanted = [*encode("The"), 639, *encode(" sat on the"), 638, *encode("."), EOS]
    for text in (
        "The <extra_id_0> sat on the <extra_id_1>.",
        "The<mask> sat on the\n<mask>.",
        "The <mask> sat on the <extra_id_1>.",
        "The <extra_id_0> sat on the <mask>.",
    ):
        for name in ("prompt", "source"):
            asked = prompts({name: text})
            assert asked.ids.tolist() == wanted
            assert asked.has_spans
    asked = prompts({"prompt": "Nothing is hidden"})
    assert (asked.ids.tolist(), asked.has_spans) == ([*encode("Nothing is hidden"), EOS], False)
    assert prompts({"source_ids": [7, 639, 1]}).ids.tolist() == [7, 639, 1]


def test_masks_are_spelled(make, tokenizer):
    prompts = make("bart", "denoising")
    encode = lambda text: tokenizer.encode(text).tolist()
    asked = prompts({"prompt": "The <mask> sat <extra_id_0>"})
    assert asked.ids.tolist() == [BOS, *encode("The"), MASK, *encode(" sat <extra_id_0>"), EOS]
    assert not asked.has_spans
    both = make("bart", {"name": "mixture", "mixture": MIXTURE})
    asked = both({"prompt": "The <mask> sat <extra_id_0>"})
    assert asked.ids.tolist() == [BOS, *encode("The"), MASK, *encode(" sat"), 639, EOS]
    plain = make("t5", "prefix_lm")({"prompt": "The <mask> sat"})
    assert plain.ids.tolist() == [*encode("The <mask> sat"), EOS]


def test_modes_are_those_of_training(make, tokenizer):
    prompts = make("t5", "ul2")
    encode = lambda text: tokenizer.encode(text).tolist()
    r, s, x = 639 - 128, 639 - 129, 639 - 130
    assert prompts({"prompt": "The <mask>"}).ids.tolist() == [r, *encode("The"), 639, EOS]
    assert prompts({"prompt": "The cat"}).ids.tolist() == [s, *encode("The cat"), EOS]
    asked = prompts({"prompt": "<extra_id_130>The <extra_id_0>"})
    assert asked.ids.tolist() == [x, *encode("The"), 639, EOS]
    assert prompts.filled(asked, [639, *encode(" end")]) == "The end"
    with pytest.raises(UserError, match="<mask> would be sentinel 128, and the model has 128"):
        prompts({"prompt": "a <mask>" * 129})


def test_what_is_filled_in(make, tokenizer):
    prompts = make("t5", "span_corruption")
    encode = lambda text: tokenizer.encode(text).tolist()
    asked = prompts({"prompt": "The <mask> sat on the <mask>."})
    answer = [7, 639, *encode(" old cat"), 638, *encode(" m\u00e4t"), 639, 8]
    assert prompts.filled(asked, answer) == "The old cat sat on the m\u00e4t."
    assert prompts.filled(asked, answer[1:2]) == "The<extra_id_0> sat on the<extra_id_1>."
    spelled = f"<extra_id_0> old cat<extra_id_1> m\u00e4t<extra_id_0>{tokenizer.decode([8])}"
    assert prompts.text(answer[1:]) == spelled


def test_what_may_be_written(make, tokenizer):
    words = set(range(5, tokenizer.vocab_size))
    allowed = lambda *args: set(np.flatnonzero(make(*args).allowed()).tolist())
    assert allowed("gpt2", "clm") == words | {EOS}
    assert allowed("bart", "denoising") == words | {EOS, BOS}
    assert allowed("t5", "span_corruption") == words | {EOS, BOS} | set(range(512, ROWS))
    assert allowed("t5", "ul2") == words | {EOS, BOS} | set(range(512, ROWS))
    of_ids = IdsTokenizer(600, {"pad": 7, "eos": 7, "unk": 9, "bos": 3})
    assert allowed("gpt2", "clm", of_ids) == set(range(600)) - {3, 9}


@pytest.mark.parametrize(
    ("family", "record", "message"),
    [
        ("gpt2", {"text": "a"}, "has no field prompt; a line has prompt"),
        ("gpt2", {"prompt": "a", "prompt_ids": [5]}, "both prompt and prompt_ids"),
        ("gpt2", {"source": "a"}, "has no field prompt"),
        ("gpt2", {"prompt": 5}, "prompt is 5, not text"),
        ("gpt2", {"prompt": "\ud800"}, "surrogate"),
        ("gpt2", {"prompt_ids": [640]}, r"prompt_ids\[0\]=640 is outside the vocabulary of 640"),
        ("t5", {"prompt": " \n"}, "prompt is empty, and the encoder needs something to read"),
        ("t5", {"prompt_ids": []}, "prompt_ids is empty"),
        ("t5", {"prompt": "a", "source": "b"}, "both prompt and source"),
        ("t5", {"prompt": "a <extra_id_128>"}, "would be sentinel 128, and the model has 128"),
    ],
)
def test_what_is_no_prompt(make, family, record, message):
    objective = {"gpt2": "clm", "t5": "span_corruption"}[family]
    with pytest.raises(UserError, match=message) as caught:
        make(family, objective)(record)
    assert "\n" not in str(caught.value)


def test_without_a_tokenizer_there_are_only_ids(make):
    prompts = make("gpt2", "clm", IdsTokenizer(640, {"eos": 1}), None)
    assert not prompts.knows_text
    assert prompts({"prompt_ids": [5]}).ids.tolist() == [5]
    with pytest.raises(UserError, match="imported without its tokenizer"):
        prompts({"prompt": "a"})
    with pytest.raises(UserError, match="prompt_ids is empty"):
        prompts({"prompt_ids": []})


def test_stop_strings_across_tokens(tokenizer):
    ids = tokenizer.encode("The quick brown fox\nand more").tolist()
    stop = StopStrings(("own f", "zzz"), tokenizer.decode)
    (at,) = [n for n in range(len(ids)) if stop(ids[:n]) and not stop(ids[: n - 1])]
    assert stop.cut(tokenizer.decode(ids[:at])) == "The quick br"
    assert StopStrings(("more", "fox\n", "x"), tokenizer.decode).cut("a fox\nand more") == "a "
    assert stop.cut("nothing of it") == "nothing of it"
    with pytest.raises(UserError, match="empty stop string"):
        StopStrings(("a", ""), tokenizer.decode)
