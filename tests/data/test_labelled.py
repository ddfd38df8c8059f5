import gzip
import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmjax import batch as batch_lib
from lmjax.batch import Ids
from lmjax.data import labelled, tokenizer, tokenizer_training
from lmjax.data.labelled import TextEncoder
from lmjax.errors import UserError
from lmjax.objectives import sequence_classification

RECORDS = [{"text": f"sentence number {i}", "label": "ab"[i % 2]} for i in range(40)]
QUIET = lambda line: None


def write(path, records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return str(path)


def read(path, fields=(), split="train"):
    return labelled.read(str(path), split, dict(fields), "tokenizer")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    files = labelled.files_lib.find_files("bundled:corpus_small")
    tokenizer_training.train(files, folder, vocab_size=600, model_type="bpe", sample_bytes=200_000)
    return TextEncoder(tokenizer.load(folder))


def rows_of(store, encoder, seq_len=32, truncate=False, log=QUIET):
    objective = sequence_classification.SequenceClassification(
        seq_len, Ids(num_ids=600, num_rows=640), ("a", "b")
    )
    limits = {"data.seq_len": seq_len}
    return labelled.rows(store, objective, encoder, limits, truncate=truncate, log=log)


def test_every_kind_of_file_holds_the_same_examples(tmp_path):
    plain = read(write(tmp_path / "a.jsonl", RECORDS))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as stream:
        stream.writelines(f"{json.dumps(record)}\n" for record in RECORDS)
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "c.parquet")
    for name in ("b.jsonl.gz", "c.parquet"):
        other = read(tmp_path / name)
        assert other.records == plain.records
        assert other.manifest_sha256 == plain.manifest_sha256
        assert other.origin(3) == (name, 3)


def test_fields_may_have_other_names_and_blank_lines_are_none(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"review": "good", "stars": 5}\n\n \n{"review": "x"}\n')
    found = read(tmp_path / "a.jsonl", {"text": "review", "label": "stars"})
    assert found.records[0] == {"review": "good", "stars": 5, "text": "good", "label": 5}
    assert [found.origin(i)[1] for i in range(2)] == [0, 3]


def test_equal_examples_are_held_out_together(tmp_path):
    found = read(write(tmp_path / "a.jsonl", RECORDS * 2))
    train, held_out = labelled.hold_out(found, 0.3)
    assert len(train.records) + len(held_out.records) == 80
    texts = [{record["text"] for record in part.records} for part in (train, held_out)]
    assert not texts[0] & texts[1]
    assert 4 <= len(held_out.records) <= 44
    assert (train.split, held_out.split) == ("train", "eval")
    assert train.manifest_sha256 != held_out.manifest_sha256


def test_rows_are_padded_as_promised_and_one_behind_the_last_is_padding(tmp_path, encoder):
    rows = rows_of(read(write(tmp_path / "a.jsonl", RECORDS)), encoder)
    assert len(rows) == 40
    index = np.array([3, 40, 0])
    batch = rows.make(0, np.zeros(3, np.int64), index)
    batch_lib.check(batch, rows.objective.spec(3))
    for slot, number in ((0, 3), (2, 0)):
        for name, values in rows.examples[number].row.items():
            assert np.array_equal(batch[name][slot, : len(values)], values), name
            assert not batch[name][slot, len(values) :].any(), name
    assert not any(field[1].any() for field in batch.values())
    assert rows.documents(3) == [3]
    assert rows.documents(40) == []


def test_where_tokens_come_from_in_a_text(encoder):
    text = "Olé, 東京\tin▁Oslo 🙂 and 5 July."
    ids, spans = encoder.spans(text)
    assert np.array_equal(ids, encoder.ids(text))
    assert (spans[:, 0] < spans[:, 1]).all()
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start in (end, end - 1)  # of a character in several bytes each has it whole
    tokens = encoder.tokenizer
    for token, (start, end) in zip(ids, spans, strict=True):
        if not tokens.piece(token).startswith("<0x"):
            assert tokens.decode([token]) == text[start:end].replace("▁", " ")
    assert spans[0, 0] == 0
    assert spans[-1, 1] == len(text)


@pytest.mark.parametrize("limit", [12, 200])
def test_what_is_too_long_is_refused_or_cut_and_said(tmp_path, encoder, limit):
    records = [*RECORDS, {"text": "long " * limit, "label": "a"}]
    store = read(write(tmp_path / "a.jsonl", records))
    needed = len(encoder.ids("long " * limit)) + 2
    said = f"1 of 41 examples take more than config.data.seq_len={needed - 1} ids"
    with pytest.raises(UserError) as error:
        rows_of(store, encoder, needed - 1)
    assert str(error.value) == (
        f"a.jsonl:41: too long ({needed} ids); {said}, the longest {needed}: set data.seq_len to "
        "that, or objective.truncate=True"
    )
    lines = []
    rows = rows_of(store, encoder, needed - 1, truncate=True, log=lines.append)
    assert lines == [f"{store.path}: {said}, the longest {needed}, and are cut"]
    assert len(rows.examples[40].row["inputs"]) == needed - 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"\n', "a.jsonl:1: not JSON"),
        ('{"text": "a", "label": "a"}\n[1]\n', "a.jsonl:2: no JSON object"),
        ("\n\n", "holds no examples"),
    ],
)
def test_bad_files(tmp_path, content, said):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UserError) as error:
        read(tmp_path / "a.jsonl")
    assert said in str(error.value)


def test_text_files_hold_no_labels(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match="no labelled examples; give JSON lines"):
        read(tmp_path / "a.txt")


def test_a_mistake_in_an_example_names_its_place(tmp_path, encoder):
    store = read(write(tmp_path / "a.jsonl", [*RECORDS, {"text": " ", "label": "a"}]))
    with pytest.raises(UserError, match=r"a\.jsonl:41: text is empty"):
        rows_of(store, encoder)


def test_too_few_to_hold_some_out(tmp_path):
    found = read(write(tmp_path / "a.jsonl", RECORDS[:2]))
    with pytest.raises(UserError, match=r"of 2 examples data.eval_fraction=0.001 leaves 0"):
        labelled.hold_out(found, 0.001)
