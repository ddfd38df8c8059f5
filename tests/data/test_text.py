"""Readers: every format, and every fault a record or a file can have."""

import gzip
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmjax.data import files, sample, text
from lmjax.data.files import find_files, short_names
from lmjax.errors import UserError


def read(path, text_key="text", text_split="file", start=(0, 0)):
    counts = Counter()
    documents = list(
        text.read_documents(
            find_files(str(path)),
            text_key=text_key,
            text_split=text_split,
            counts=counts,
            start=start,
        )
    )
    return documents, dict(counts)


def texts_of(path, **kwargs):
    return [d.text for d in read(path, **kwargs)[0]]


JSONL = b'{"text": "one"}\n{"text": "two \xc3\xa9"}\n{"n": 1, "text": "three"}'


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_jsonl_plain_and_compressed(tmp_path, suffix):
    path = tmp_path / f"x.jsonl{suffix}"
    compress = {"": bytes, ".gz": gzip.compress, ".zst": _zstd}[suffix]
    path.write_bytes(compress(JSONL))
    documents, counts = read(path)
    assert [(d.text, d.file, d.record) for d in documents] == [
        ("one", 0, 0),
        ("two é", 0, 1),
        ("three", 0, 2),
    ]
    assert counts == {}


def _zstd(data):
    return pa.compress(data, "zstd", asbytes=True)


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", _zstd)])
def test_streams_of_several_frames_are_read_to_their_end(tmp_path, suffix, compress):
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(compress(b"first\n") + compress(b"second\n") * 3)
    assert texts_of(path, text_split="line") == ["first", "second", "second", "second"]


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", _zstd)])
@pytest.mark.parametrize("fault", ["truncated", "garbage"])
def test_torn_streams_are_errors_that_name_the_file(tmp_path, suffix, compress, fault):
    path = tmp_path / f"x.jsonl{suffix}"
    whole = compress(b"\n".join(json.dumps({"text": str(i) * 9}).encode() for i in range(9999)))
    path.write_bytes(whole[: len(whole) // 2] if fault == "truncated" else b"not it" * 9)
    with pytest.raises(UserError, match=r"x\.jsonl.*damaged or incomplete"):
        read(path)


def test_bad_records_cost_themselves_only(tmp_path):
    lines = [
        b'\xef\xbb\xbf{"text": "good one"}\r',
        b'{"text": "bad \xff byte"}',
        b'{"text": "unclosed',
        b'{"text": 5}',
        b'{"other": "x"}',
        b"[1, 2]",
        b"",
        b'{"text": ""}',
        b'{"text": " \\n\\t "}',
        b'{"text": "half a pair \\ud800"}',
        b'{"text": "nul \\u0000 and\\r\\nCRLF and\\rCR, caf\\u0065\\u0301"}',
        b"[" * 100_000,
        b'{"text": "raw\ttab"}',
        b'{"text": "\\ufefflast"}',
    ]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(lines))
    documents, counts = read(path)
    assert [d.text for d in documents] == [
        "good one",
        "nul  and\nCRLF and\nCR, café",
        "raw\ttab",
        "last",
    ]
    assert [d.record for d in documents] == [0, 10, 12, 13]
    assert counts == {
        "bad_utf8": 2, "bad_json": 2, "no_text": 3, "empty": 2, "nul_removed": 1
    }  # fmt: skip


def test_missing_key_in_the_first_record_lists_the_fields(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"body": "x", "id": 1}\n{"text": "y"}\n')
    with pytest.raises(UserError, match=r"no field 'text'; it has body, id"):
        read(path)
    assert texts_of(path, text_key="body") == ["x"]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("file", ["\nfirst\nstill first\n\n \n\nsecond\n"]),
        ("line", ["first", "still first", "second"]),
        ("paragraph", ["first\nstill first", "second"]),
    ],
)
def test_txt_splits(tmp_path, split, expected):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbf\r\nfirst\r\nstill first\r\n\r\n \r\n\r\nsecond\r\n")
    assert texts_of(path, text_split=split) == expected


@pytest.mark.parametrize("split", ["line", "paragraph"])
def test_reading_goes_on_from_any_record(tmp_path, split):
    for name in "ab":
        body = "\n\n".join(f"{name}{i}\nmore" for i in range(5))
        (tmp_path / f"{name}.txt").write_text(body)
    documents, _ = read(tmp_path, text_split=split)
    for i, document in enumerate(documents):
        rest, _ = read(tmp_path, text_split=split, start=(document.file, document.record + 1))
        assert rest == documents[i + 1 :]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet(tmp_path, kind):
    values = [f"row {i}" if i % 7 else None for i in range(100)]
    table = pa.table({"id": range(100), "text": pa.array(values).cast(kind)})
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=30)
    documents, counts = read(path)
    assert [(d.text, d.record) for d in documents] == [
        (v, i) for i, v in enumerate(values) if v is not None
    ]
    assert counts == {"no_text": 15}
    assert read(path, start=(0, 61))[0] == [d for d in documents if d.record >= 61]
    with pytest.raises(UserError, match="no column 'body'; it has id, text"):
        read(path, text_key="body")
    with pytest.raises(UserError, match="'id' holds int64"):
        read(path, text_key="id")


def test_parquet_with_a_bad_string_or_a_torn_end(tmp_path):
    bad = pa.array([b"fine", b"bad \xff", b"fine too"]).view(pa.string())
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": bad}), path, use_dictionary=False)
    documents, counts = read(path)
    assert [d.text for d in documents] == ["fine", "fine too"]
    assert counts == {"bad_utf8": 1}
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"x\.parquet.*damaged"):
        read(path)


def test_records_beyond_the_limit_are_skipped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MAX_RECORD_BYTES", 1000)
    path = tmp_path / "x.txt"
    path.write_text("short\n" + "x" * 5000 + "\nshort too\n\n" + ("y" * 500 + "\n") * 3 + "\nend")
    documents, counts = read(path, text_split="line")
    assert [d.text[:9] for d in documents] == ["short", "short too", *["y" * 9] * 3, "end"]
    assert counts.pop("too_long") == 1
    documents, counts = read(path, text_split="paragraph")
    assert [d.text for d in documents] == ["end"]
    assert counts == {"too_long": 2}
    with pytest.raises(UserError, match="text_split"):
        read(path)


@pytest.mark.slow
def test_a_line_of_half_a_gigabyte_is_not_held(tmp_path):
    import tracemalloc

    path = tmp_path / "x.jsonl"
    with path.open("wb") as out:
        out.write(b'{"text": "first"}\n{"text": "')
        for _ in range(512):
            out.write(b"x" * (1 << 20))
        out.write(b'"}\n{"text": "last"}\n')
    tracemalloc.start()
    documents, counts = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [d.text for d in documents] == ["first", "last"]
    assert counts == {"too_long": 1}
    assert peak < 3 * text.MAX_RECORD_BYTES


def test_find_files(tmp_path):
    for name in ("b.txt", "a.jsonl", "sub/c.jsonl.zst", "notes.md", ".hidden/d.txt", "e.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    whole = find_files(str(tmp_path))
    assert short_names(whole) == ("a.jsonl", "b.txt", "sub/c.jsonl.zst")
    assert find_files(f"{tmp_path}/b.txt,{tmp_path}/*.jsonl,{tmp_path}/b.txt") == whole[:2]
    assert find_files(f"{tmp_path}/**/*.zst") == whole[2:]
    assert len(find_files("bundled:corpus_small")) == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{}/no.txt", r"no\.txt: no such file or folder; check"),
        ("{}/no/such/x.txt", r"already .*/no is missing"),
        ("{}/no/*.txt", "/no: no such folder"),
        ("{}/*.txt", "matches no file"),
        ("{}/*", r"only \.md; supported are \.txt"),
        ("{}/notes.md", r"not a supported kind of file; use \.txt"),
        ("{}", r"only \.md"),
        (" , ", "empty"),
        ("bundled:nope", "there is corpus_small"),
    ],
)
def test_find_files_says_what_is_missing(tmp_path, path, message):
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(UserError, match=message):
        find_files(path.format(tmp_path))


@pytest.mark.parametrize("kind", ["jsonl", "txt", "parquet"])
def test_sample_is_spread_over_the_file_and_repeatable(tmp_path, kind):
    rows = [f"{i:05d} " + "x" * 50 for i in range(20_000)]
    path = tmp_path / f"x.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": r}) + "\n" for r in rows))
    elif kind == "txt":
        path.write_text("\n".join(rows))
    else:
        pq.write_table(pa.table({"text": rows}), path, row_group_size=1000, compression="none")
    args = {"text_key": "text", "text_split": "file", "num_bytes": 50_000}
    taken = list(sample.sample_texts(find_files(str(path)), **args))
    assert taken == list(sample.sample_texts(find_files(str(path)), **args))
    assert 45_000 < sum(len(t) for t in taken) < 60_000
    tenths = {int(t[:5]) // 2000 for t in taken if t[:5].isdigit() and len(t) > 5}
    assert tenths == set(range(10))


def test_sample_enters_only_what_is_made_of_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SUFFIXES", (*files.SUFFIXES, ".box"))
    path = tmp_path / "x.box"
    path.write_text("".join(f"{i:05d}\n" for i in range(10_000)))
    args = {"text_key": "text", "text_split": "line", "num_bytes": 100}
    taken = list(sample.sample_texts(find_files(str(path)), **args))
    assert taken == [f"{i:05d}" for i in range(20)]


def test_sample_gives_each_file_its_share(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text(f"{name}\n" * 10_000)
    args = {"text_key": "text", "text_split": "line", "num_bytes": 4000}
    taken = "".join(sample.sample_texts(find_files(str(tmp_path)), **args))
    assert all(900 <= taken.count(name) <= 1100 for name in "abcd")
