"""Rules of quality beside the engine's own, and what they are judged by."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("datatrove")
pytest.importorskip("spacy")
pytest.importorskip("py3langid")

import curated
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import get_filter_result
from datatrove.utils.word_tokenizers import SpaCyTokenizer, load_word_tokenizer
from small_run import CORPUS

from lmjax.curate import engine_words, quality
from lmjax.curate.text_steps import Extract
from lmjax.errors import UserError

SENTENCES = {
    "eng_Latn": "It isn't Mr. Knightley's, is it? He paid $3.50 (twice!) at www.example.com...",
    "spa_Latn": "¿Quién lo dice? —preguntó Ana—; «nadie», dijo el Sr. López.",
    "arb_Arab": "كتب الطالب الدرس، ثم ذهب إلى المدرسة.",
    "rus_Cyrl": "Он сказал: «Да, конечно!» — и т. д.",
}


def _judged(text):
    """Rule and text by our rules."""
    document = Document(text, "x", metadata={"language": "en"})
    for family in quality.FAMILIES:
        if (rule := quality.Quality(family)(document)) is not None:
            return rule, document.text
    return None, document.text


def _judged_by_the_engine(text, chain):
    document = Document(text, "x")
    for family, judge in chain:
        kept, why = get_filter_result(judge.filter(document))
        if not kept:
            return f"{family}_{why.removeprefix(f'{family}_')}", document.text
    return None, document.text


def test_english_is_judged_as_by_the_engine():
    """All but the share of words with a letter, which is put right."""
    chain = (
        ("repetition", GopherRepetitionFilter()),
        ("gopher", GopherQualityFilter(max_non_alpha_words_ratio=None)),
        ("c4", C4QualityFilter(filter_no_terminal_punct=False)),
        ("fineweb", FineWebQualityFilter()),
    )
    texts = [json.loads(line)["text"] for line in CORPUS.read_text().splitlines()]
    texts = [part for text in texts[::25] for part in (text[:6000], text[:700], text[500:650] * 3)]
    texts += ["", "One.", "A line of words\n" * 40, "Who? Me. You. Us. They! " * 9, "{ x } " * 60]
    ours = [_judged(text) for text in texts]
    theirs = [_judged_by_the_engine(text, chain) for text in texts]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == other or mine[0] == "gopher_below_alpha_threshold"
    rules = {rule for rule, _ in ours}
    assert len(rules) > 4
    assert None in rules


@pytest.mark.parametrize("kept", [engine_words._WORDS_KEPT, 0])
@pytest.mark.parametrize("code", sorted(SENTENCES))
def test_words_are_the_engines(code, kept, monkeypatch):
    monkeypatch.setattr(engine_words, "_WORDS_KEPT", kept)
    ours, theirs = engine_words.EngineWords(code), load_word_tokenizer(code)
    for text in (SENTENCES[code], f"  {SENTENCES[code]}\n\nx", "", SENTENCES[code]):
        assert ours.word_tokenize(text) == theirs.word_tokenize(text)
        assert ours.span_tokenize(text) == theirs.span_tokenize(text)
    assert ours.word_tokenize("a IS_ALPHA b") == ["a", "b"]
    assert len(ours.span_tokenize("a IS_ALPHA b")) == 1


def test_every_language_has_rules_without_further_packages():
    others = ["mt", "zh", "ja", "no", "und", "xx"]
    for language in [*quality._spacy_languages(), *others]:
        code = quality.engine_code(language)
        assert isinstance(load_word_tokenizer(code), SpaCyTokenizer)  # which is not yet loaded
    for language in ["ar", *others]:
        document = Document(SENTENCES["eng_Latn"], "x", metadata={"language": language})
        for family in quality.FAMILIES:
            quality.Quality(family)(document)


# The engine's extractor forks; its tool has no JAX at work, and the child none of it either.
@pytest.mark.filterwarnings("ignore:os.fork")
def test_pages_without_text_are_told_of_by_rule_alone(caplog):
    extract, document = Extract(), Document("<html><body></body></html>", "x")
    try:
        assert extract(document) == "extract_nothing"
    finally:
        extract.close()
    assert caplog.records == []


def test_a_classifier_drops_its_label(tmp_path):
    pytest.importorskip("fasttext")
    (tmp_path / "train.txt").write_text(
        "__label__bad buy cheap pills now and win\n__label__good he walked home in the rain\n" * 20
    )
    # In a process of its own: training begins with memory that nobody has set, mostly zeros there.
    train = (
        "import fasttext; fasttext.train_supervised('train.txt', epoch=50, lr=0.5, loss='ova', "
        "thread=1, verbose=0).save_model('model.bin')"
    )
    subprocess.run([sys.executable, "-c", train], cwd=tmp_path, check=True)
    records = [
        {"text": "buy pills now and win cheap pills", "id": "bad"},
        {"text": "he walked in the rain", "id": "good"},
    ]
    settings = {"steps": ("repair",), "classifier": str(tmp_path / "model.bin")}
    found, out = curated.curate(tmp_path, records, **settings, classifier_label="bad")
    assert [document["id"] for document in curated.documents(f"{out}/kept")] == ["good"]
    assert found["dropped"]["classifier"]["documents"] == 1
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match="knows no label 'ugly'; it has"):
        curated.curate(tmp_path / "again", records, **settings, classifier_label="ugly")
    (tmp_path / "model.bin").write_text("no model")
    with pytest.raises(UserError, match="no fastText model"):
        curated.curate(tmp_path / "again", records, **settings, classifier_label="bad")


@pytest.mark.slow
def test_the_bench_times_both(tmp_path):
    from lmjax.bench import curation

    records = [{"text": text, "id": str(i)} for i, text in enumerate(curated.prose(30))]
    path = curated.write(tmp_path / "text.jsonl", [*records, records[0]])
    found = curation.measure([str(path)], 0.0)
    assert found.documents == 31
    assert found.kept == found.engine_kept <= 30
    assert found.filters.keys() > {"language", *quality.FAMILIES, "near_signatures"}
    assert found.ratio > 0
