"""Text behind URLs gives the same documents, and stores, as the same text on disk."""

import gzip
import sys
import uuid
from collections import Counter

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from lmjax import paths
from lmjax.data import files, prepare, text, tokenizer
from lmjax.errors import UserError


class Buffered(AbstractBufferedFile):
    """What object stores open, and what has a `readline` of its own."""

    def _fetch_range(self, start, end):
        return self.fs.cat_file(self.path, start, end)


class FakeHub(MemoryFileSystem):
    """As huggingface_hub registers it, with the files in memory."""

    protocol = "hf"

    def _open(self, path, mode="rb", **kwargs):
        if mode == "rb":
            return Buffered(self, path, mode, size=self.size(path))
        return super()._open(path, mode, **kwargs)

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("hf://", "memory://", 1))


class Closed(MemoryFileSystem):
    """A store that lets nobody in."""

    protocol = "closed"

    def info(self, path, **kwargs):
        raise PermissionError("Access Denied")


@pytest.fixture
def schemes(monkeypatch):
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.setitem(known, "hf", FakeHub)
    monkeypatch.setitem(known, "closed", Closed)


def put(scheme, corpus):
    url = f"{scheme}://datasets/{uuid.uuid4().hex}"
    paths.upload(corpus, url, ["a.jsonl", "b.jsonl"])
    return url


def read(path):
    counts = Counter()
    found = files.find_files(path)
    documents = text.read_documents(found, text_key="text", text_split="file", counts=counts)
    return [(d.file, d.record, d.text) for d in documents]


def test_a_folder_a_glob_and_a_file(corpus):
    url = put("memory", corpus)
    assert [f.rsplit("/", 1)[1] for f in files.find_files(url)] == ["a.jsonl", "b.jsonl"]
    assert files.find_files(f"{url}/*.jsonl") == files.find_files(url)
    assert files.find_files(f"{url}/b.jsonl") == files.find_files(url)[1:]
    assert read(url) == read(corpus)


def test_a_data_set_of_the_hub(corpus, schemes):
    url = put("hf", corpus)
    assert files.find_files(url)[0].startswith("hf://")
    assert read(url) == read(corpus)


def test_a_file_url_compressed(tmp_path):
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'))
    assert [t for _, _, t in read(f"file://{tmp_path}/x.jsonl.gz")] == ["one", "two"]


def test_a_store_of_remote_text_is_that_of_local_text(corpus, tokenizer_path, tmp_path):
    url = put("memory", corpus)
    manifests = []
    for name, path in (("local", corpus), ("remote", url)):
        output = tmp_path / name
        prepare.prepare(files.find_files(path), tokenizer_path, output, eval_fraction=0.1)
        manifests.append((output / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]
    again = prepare.prepare(files.find_files(url), tokenizer_path, output, eval_fraction=0.1)
    assert again["inputs"][0]["name"] == "a.jsonl"


def test_a_tokenizer_behind_a_url(tokenizer_path):
    url = f"memory://tokenizers/{uuid.uuid4().hex}"
    with pytest.raises(UserError, match=r"tokenizer_config\.json is missing"):
        tokenizer.load(url)
    paths.upload(tokenizer_path, url, paths.files_below(tokenizer_path))
    assert tokenizer.load(url).sha256 == tokenizer.load(tokenizer_path).sha256


def test_names_of_local_and_remote_files_together():
    names = files.short_names(["/data/a.txt", "gs://bucket/deep/b.txt"])
    assert names == ("data/a.txt", "gs/bucket/deep/b.txt")


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("memory://nothing/here", ["memory://nothing/here", "not there"]),
        ("memory://nothing/*.txt", ["not there"]),
        ("closed://b/x.txt", ["no credentials", "give this process the right"]),
        ("nope://b/x.txt", ["nope:// is no kind of storage"]),
    ],
)
def test_what_is_wrong_is_one_line(path, parts, schemes):
    with pytest.raises(UserError) as caught:
        files.find_files(path)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_damaged_remote_file_is_named(tmp_path):
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n' * 9999)[:-20])
    with pytest.raises(UserError, match=r"x.jsonl.gz: cannot be read to its end"):
        read(f"file://{tmp_path}/x.jsonl.gz")
