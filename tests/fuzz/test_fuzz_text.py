"""Readers of text: any bytes are documents, counted losses or one line; never anything else.

Documents of files that are not compressed are compared with a reader of three lines that holds the
whole file.
"""

import gzip
import io
import json
import unicodedata
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import PIECES, damaged, fuzz, outcome
from hypothesis import given
from hypothesis import strategies as st

from lmjax.data import labelled, sample, text

TEXTS = ["one", "two é", "", " \t", "日本語" * 50, "CR\rLF\r\nNUL\0", "\ufeffBOM", "cafe\u0301"]
JSONL = b"\n".join(json.dumps({"text": t, "n": i}).encode() for i, t in enumerate(TEXTS * 3))
TXT = "\n\n".join(TEXTS * 3).encode()


def parquet(**settings):
    table = pa.table({"n": range(3 * len(TEXTS)), "text": TEXTS * 3})
    content = io.BytesIO()
    pq.write_table(table, content, row_group_size=7, **settings)
    return content.getvalue()


def zstd(data):
    return pa.compress(data, "zstd", asbytes=True)


def read(path, text_split="file", start=0):
    counts = Counter()
    documents = text.read_documents(
        [str(path)], text_key="text", text_split=text_split, counts=counts, start=(0, start)
    )
    return [(d.record, d.text) for d in documents], counts


def clean(data):
    """The text of a record as `data.text` promises it; None: there is none."""
    try:
        found = data.decode() if isinstance(data, bytes) else data
        found.encode()
    except UnicodeError:
        return None
    found = unicodedata.normalize("NFC", found.replace("\0", "").removeprefix("\ufeff"))
    found = found.replace("\r\n", "\n").replace("\r", "\n")
    return found if found.strip() else None


def lines_of(content):
    return [line.removesuffix(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]


def texts_of_lines(content):
    return [found for line in lines_of(content) if (found := clean(line)) is not None]


def texts_of_jsonl(content):
    found = []
    for line in lines_of(content):
        try:
            value = json.JSONDecoder(strict=False).decode(line.decode())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            found.append(clean(value["text"]))
    return [one for one in found if one is not None]


def test_lines_of_any_bytes(tmp_path):
    path, pieces = tmp_path / "x.txt", [*PIECES, b"word", b"\xff\xfe", b"   "]

    @fuzz
    @given(content=st.lists(st.sampled_from(pieces) | st.binary(max_size=9)).map(b"".join))
    def property(content):
        path.write_bytes(content)
        documents, counts = read(path, "line")
        assert [found for _, found in documents] == texts_of_lines(content)
        for number in (1, 3):
            assert read(path, "line", number)[0] == [d for d in documents if d[0] >= number]
        assert counts["bad_utf8"] + len(documents) <= content.count(b"\n") + 1
        paragraphs, _ = read(path, "paragraph")
        for number, _ in paragraphs:
            assert read(path, "paragraph", number)[0] == [d for d in paragraphs if d[0] >= number]
        whole, counts = read(path)
        expected = clean(content.removeprefix(b"\xef\xbb\xbf"))
        assert [found for _, found in whole] == [one for one in [expected] if one is not None]
        assert len(whole) + counts["bad_utf8"] + counts["empty"] == 1

    property()


def test_json_lines_of_any_bytes(tmp_path):
    path = tmp_path / "x.jsonl"

    @fuzz
    @given(content=damaged(JSONL))
    def property(content):
        path.write_bytes(content)
        found = outcome(lambda: read(path))
        if found is not None:
            assert [one for _, one in found[0]] == texts_of_jsonl(content)
        else:  # there is one more mistake that a whole file can have
            assert isinstance(json.loads(lines_of(content)[0]), dict)

    property()


@pytest.mark.parametrize("split", ["file", "line"])
@pytest.mark.parametrize("suffix", [".txt.gz", ".txt.zst", ".jsonl.gz", ".jsonl.zst"])
def test_damaged_streams(tmp_path, suffix, split):
    whole = JSONL if suffix.startswith(".jsonl") else TXT
    compressed = gzip.compress(whole) if suffix.endswith("gz") else zstd(whole)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(compressed)
    expected = read(path, split)

    @fuzz
    @given(content=damaged(compressed, most=2))
    def property(content):
        path.write_bytes(content)
        found = outcome(lambda: read(path, split))
        assert found in (None, expected) or suffix.endswith("zst")  # which has no checksum here

    property()


@pytest.mark.parametrize("checksums", [True, False])
def test_damaged_parquet(tmp_path, checksums):
    path, whole = tmp_path / "x.parquet", parquet(write_page_checksum=checksums)
    path.write_bytes(whole)
    expected = read(path)

    @fuzz
    @given(content=damaged(whole, most=2))
    def property(content):
        path.write_bytes(content)
        found = outcome(lambda: read(path))
        if checksums and content != whole and found is not None:
            assert {one for _, one in found[0]} <= {one for _, one in expected[0]}
        outcome(lambda: list(labelled._records(str(path))))

    property()


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet", ".jsonl.zst"])
def test_a_sample_of_damaged_files(tmp_path, suffix):
    whole = {".txt": TXT, ".jsonl": JSONL * 9, ".parquet": parquet(), ".jsonl.zst": zstd(JSONL)}
    path = tmp_path / f"x{suffix}"

    @fuzz
    @given(content=damaged(whole[suffix]), num_bytes=st.sampled_from([1, 40, 10_000]))
    def property(content, num_bytes):
        path.write_bytes(content)
        how = {"text_key": "text", "text_split": "line", "num_bytes": num_bytes}
        found = outcome(lambda: list(sample.sample_texts([str(path)], **how)))
        assert found is None or all(one.encode() and "\0" not in one for one in found)

    property()
