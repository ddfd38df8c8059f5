"""What vocabularies say of words and sentences, against rules applied to the text itself."""

import itertools
import json
import random
import re
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import published_tokenizers as made
import pytest
from tokenizers import pre_tokenizers

from lmjax.data import files, pieces, tokenizer, tokenizer_training
from lmjax.data.json_tokenizer import JsonTokenizer
from lmjax.objectives.words import sentence_starts, word_starts

CHINESE = (
    "我们 今天 学习 新 的 语言 他 在 北京 大学 工作 朋友 喜欢 音乐 图书馆 里 有 很多 书 昨天 下雨 "
    "天气 不 好 老师 学生 城市 孩子 吃饭 喝 水 火车 飞机 花园 电影 一起 去 看 名字 世界 和平"
)
THAI = (
    "ฉัน รัก ภาษา ไทย วันนี้ อากาศ ดี มาก เขา ไป กับ เพื่อน แม่ ทำ อาหาร ที่ บ้าน ใหม่ และ กิน ข้าว น้ำ "
    "ร้อน เย็น คน เด็ก ครู แมว หมา รถ ถนน เมือง วัด ฝน ตก เช้า นอน เดิน พูด ฟัง"
)
OTHERS = (
    "“It can’t last,” he said. (No.) She's 3.14 m tall; see example.org…\n\nŌe\u0301xyz — x² ‘So?’ "
    'Two. She said: "Yes!" Then\t[nobody] came... What?! Ünïcödé naïve, O.K.\n'
)


def tokens_of(model, text):
    """(ids, where words begin, where sentences begin)."""
    ids = model.encode(text)
    row, known = ids[None], pieces.make(model, model.vocab_size + 7)
    document = np.zeros(row.shape, np.int64)
    return ids, word_starts(row, document, known)[0], sentence_starts(row, document, known)[0]


def cut(model, ids, starts):
    """The text of what lies between starts."""
    return [model.decode(part) for part in np.split(ids, np.flatnonzero(starts)[1:])]


def is_sign(character):
    category = unicodedata.category(character)
    return not (character.isspace() or category[0] in "LNM")


def word_rule(text):
    """Whether a word begins at each character, read off the text."""
    yield True
    for left, right in itertools.pairwise(text):
        yield not left.isspace() and (right.isspace() or is_sign(left) or is_sign(right))


def sentence_rule(text):
    """The same of sentences that end as in English."""
    ends = {m.end() for m in re.finditer(r"[.!?…][.!?…'\"”’»)\]]*(?=\s)", text)}
    yield True
    yield from (at in ends for at in range(1, len(text)))


def assert_as_ruled(model, text):
    ids, words, sentences = tokens_of(model, text)
    assert model.decode(ids) == text
    at_byte = {len(text[:i].encode()): i for i in range(len(text))}
    offsets = np.cumsum(model.bytes_per_id[ids]) - model.bytes_per_id[ids]
    by_word, by_sentence = list(word_rule(text)), list(sentence_rule(text))
    for offset, word, sentence in zip(offsets.tolist(), words, sentences, strict=True):
        at = at_byte.get(offset)  # None: within a character
        assert word == (at is not None and by_word[at]), (text[:at][-20:], text[at : at + 20])
        assert sentence == (at is not None and by_sentence[at]), (text[:at][-20:], at)
    return len(ids)


def bundled(number):
    with Path(files.find_files("bundled:corpus_small")[0]).open(encoding="utf-8") as file:
        return [json.loads(line)["text"][:3000] for line in itertools.islice(file, number)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return {
        "wordpiece": made.wordpiece(root / "wordpiece", vocab_size=1500),
        "byte_level": made.byte_level(root / "byte_level", vocab_size=1500),
        "llama3": made.byte_level(root / "llama3", vocab_size=1500, words=made.LLAMA3),
        "pieces": made.pieces(root / "pieces", sentinels=20),
    }


def test_own_tokenizers_know_the_words_and_sentences_of_a_text(any_tokenizer):
    model = tokenizer.load(any_tokenizer)
    assert sum(assert_as_ruled(model, text) for text in bundled(12)) > 5000
    known = pieces.make(model, model.vocab_size)
    assert known.unsegmented == known.segmented == ()


@pytest.mark.parametrize("kind", ["byte_level", "llama3", "pieces"])
def test_so_do_imported_ones(folders, kind):
    model = JsonTokenizer(made.files_of(folders[kind]))
    texts = [re.sub(r"[^\x00-\x7f]", "é", text) for text in bundled(12)]
    assert sum(assert_as_ruled(model, text) for text in texts) > 5000


def test_wordpiece_says_itself_what_begins_a_word(folders):
    model = JsonTokenizer(made.files_of(folders["wordpiece"]))
    for text in [*bundled(5), OTHERS]:
        ids, words, _ = tokens_of(model, text)
        plain = model._encoder.normalizer.normalize_str(text)
        assert words.sum() == len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str(plain))
        assert not any(model.piece(i).startswith("##") for i in ids[words])
    ids, _, sentences = tokens_of(model, 'He is not 3.3. Is he? ("Yes.") No!')
    assert [s.replace(" ", "") for s in cut(model, ids, sentences)] == [
        "heisnot3.3.",
        "ishe?",
        '("yes.")',
        "no!",
    ]


def corpus(folder, words, separator, stop):
    """Documents of five sentences of given words; returns the last."""
    rng = random.Random(0)
    draw = lambda: separator.join(rng.choices(words.split(), k=rng.randint(4, 9)))
    texts = ["".join(draw() + stop for _ in range(5)).rstrip() for _ in range(300)]
    folder.mkdir()
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (folder / "text.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return texts[-1]


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize(
    ("script", "words", "stop"), [("Han", CHINESE, "。"), ("Thai", THAI, "!\n")]
)
def test_words_of_scripts_without_spaces(tmp_path, script, words, stop, model_type):
    for name, separator in (("none", ""), ("space", " "), ("mark", pieces.MARK)):
        text = corpus(tmp_path / name, words, separator, stop)
        paths = files.find_files(str(tmp_path / name))
        output = tmp_path / f"{name}_tokenizer"
        tokenizer_training.train(paths, output, vocab_size=460, model_type=model_type)
        model = tokenizer.load(output)
        ids, starts, sentences = tokens_of(model, text)
        found = cut(model, ids, starts)
        assert len(cut(model, ids, sentences)) == 5
        known = pieces.make(model, model.vocab_size)
        if separator:
            expected = re.sub(r"([。!])\s?", rf"{separator}\1{separator}", text).split(separator)
            assert [w.strip(separator + "\n") for w in found] == [w for w in expected if w]
            assert [known.unsegmented, list(dict(known.segmented))] == [(), [script]]
        else:
            assert [list(dict(known.unsegmented)), known.segmented] == [[script], ()]
            assert known.unsegmented[0][1] > 60
            if script == "Han":
                assert starts.all()
            assert not {unicodedata.category(w[0])[0] for w in found if w} & {"M"}


def of(*surfaces, special=()):
    """Votes for a vocabulary given as text or bytes."""
    given = [s.encode() if isinstance(s, str) else s for s in surfaces]
    model = SimpleNamespace(
        surfaces=given, special_ids=special, continuing_prefix=None, unk_id=None
    )
    known = pieces.make(model, len(given))
    row = np.arange(len(given))[None]
    document = np.zeros(row.shape, np.int64)
    words = word_starts(row, document, known)[0].astype(int).tolist()
    return words, sentence_starts(row, document, known)[0].astype(int).tolist()


@pytest.mark.parametrize(
    ("surfaces", "words"),
    [
        ([" ", "the", "re", " is"], [1, 0, 0, 1]),
        (["a", "\n\n", " ", " b", "c"], [1, 1, 0, 0, 0]),
        (["don", "'", "t", "_", "x"], [1, 1, 1, 1, 1]),
        (["x", "e", "\u0301", "te\u0301", "s"], [1, 0, 0, 0, 0]),  # combining marks
        ([" می", "\u200c", "خواهم"], [1, 0, 0]),  # a joiner within a Persian word
        (["中", "々", "ー", "国人", "a1", "b"], [1, 0, 0, 1, 1, 0]),  # iteration, prolonged sound
        (["ខ", "\u17d2", "មែ", "រ"], [1, 0, 0, 1]),  # a Khmer letter below another
        (["a", b"\xc3", b"\xa9", "b"], [1, 0, 0, 0]),  # é in bytes
        (["a", b"\xe4\xb8", b"\xad", b"\xe6", b"\x96", b"\x87", "b"], [1, 1, 0, 1, 0, 0, 0]),
        ([b" \xe2\x80", b"\x9c", "a"], [1, 0, 0]),
        (["a", b"\xff", "b"], [1, 1, 1]),  # no UTF-8
        (["한국", "어", " 말"], [1, 0, 1]),  # Korean has spaces
    ],
)
def test_words_piece_by_piece(surfaces, words):
    assert of(*surfaces)[0] == words


@pytest.mark.parametrize(
    ("surfaces", "sentences"),
    [
        (["a", ".", " b"], [1, 0, 1]),
        (["3", ".", "14", " a"], [1, 0, 0, 0]),
        (["a", ".", '"', ")", " b"], [1, 0, 0, 0, 1]),
        (["a.)", "\n", "b"], [1, 1, 0]),
        (["a.\n", "b"], [1, 1]),
        (["a", ".", ".", ".", " b"], [1, 0, 0, 0, 1]),
        (["a", "?", "!", " ", "“b"], [1, 0, 0, 1, 0]),
        (["好", "。", "」", "他", "！", "？", "她"], [1, 0, 0, 1, 0, 0, 1]),
        (["好", "……", "我", "…", " 我"], [1, 0, 0, 0, 1]),
        (["क", "।", " ख"], [1, 0, 1]),
        (["نعم", "؟", " لا", ",", "\u200c"], [1, 0, 1, 0, 0]),
        (["好", "。", "\u0301", "他"], [1, 0, 0, 1]),
    ],
)
def test_sentences_piece_by_piece(surfaces, sentences):
    assert of(*surfaces)[1] == sentences


def test_a_special_id_is_a_word_by_itself_and_no_sentence():
    special = [2, 3, 6]
    words, sentences = of("a", ".", "", "", "b", " ", "", "\u0301", "c", special=special)
    assert words == [1, 1, 1, 1, 1, 1, 1, 1, 0]
    assert sentences == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    known = pieces.make(
        SimpleNamespace(surfaces=[b"a"], special_ids=(), continuing_prefix=None, unk_id=None), 4
    )
    assert all(len(v) == 4 for v in (known.starts_word, known.ends_word, known.ends_sentence))
    assert known.starts_word.tolist() == [0, 8, 8, 8]
