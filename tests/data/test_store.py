"""The store against a naive concatenation in memory, and its faults."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lmjax.data import (
    chunks,
    document_index,
    files,
    manifest,
    shard_readers,
    store,
    tokenizer,
    verify,
)
from lmjax.data.store import Store
from lmjax.data.windows import Windows
from lmjax.errors import UserError

LENGTHS = (1, 2, 129, 2047, 2048, 2049, 5000)


@pytest.fixture(scope="module")
def naive(texts, tokenizer_path, store_path):
    """{split: (stream, document of each token, origins)}, made without the store's code."""
    model = tokenizer.load(tokenizer_path)
    threshold = int(
        json.loads((Path(store_path) / "manifest.json").read_text())["eval_hash_below"], 0
    )
    expected = {"train": ([], [], []), "eval": ([], [], [])}
    for number, text in enumerate(texts):
        held_out = chunks.document_hash(text.encode()) < threshold
        stream, documents, origins = expected["eval" if held_out else "train"]
        ids = [*model.encode(text).tolist(), 1]
        stream += ids
        documents += [len(origins)] * len(ids)
        origins.append(("a.jsonl", number) if number < 120 else ("b.jsonl", number - 120))
    return expected


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Reads a store as one of any size is read: a little at a time, one shard open."""
    if request.param == "large":
        monkeypatch.setattr(document_index, "_MAPPED_DOCUMENTS", 0)
        monkeypatch.setattr(document_index, "_PAGE", 4)
        monkeypatch.setattr(shard_readers, "_MAX_OPEN", 1)
        monkeypatch.setattr(store, "_MAX_TOKENS_AT_ONCE", 10_000)
    return request.param


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.usefixtures("size")
def test_equals_naive_concatenation(store_path, naive, split):
    stream, documents, origins = naive[split]
    opened = Store.open(store_path, split)
    assert opened.num_tokens == len(stream)
    assert opened.num_documents == len(origins)
    assert [opened.origin(i) for i in range(len(origins))] == origins
    assert opened.documents_of(np.arange(len(stream))).tolist() == documents
    bounds = [*np.flatnonzero(np.diff(documents, prepend=-1)), len(stream)]
    for first, stop in ((0, len(origins)), (3, 9), (0, 1), (len(origins) - 2, len(origins))):
        assert opened.bounds(first, stop).tolist() == bounds[first : stop + 1]
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        starts = rng.integers(0, len(stream) + 3000, 40)
        starts[:4] = 0, len(stream) - 1, len(stream), len(stream) // 2048 * 2048
        tokens, owners = opened.read(starts, length), opened.documents_at(starts, length)
        assert tokens.dtype == np.int32
        assert owners.dtype == np.int64
        for row, start in enumerate(starts):
            fill = max(0, length - len(stream[start : start + length]))
            assert tokens[row].tolist() == stream[start : start + length] + [0] * fill
            assert owners[row].tolist() == documents[start : start + length] + [-1] * fill


def test_has_several_shards_and_describes_itself(store_path, texts):
    opened = Store.open(store_path, "train")
    assert len(opened.manifest["splits"]["train"]["shards"]) >= 3
    sizes = [Store.open(store_path, s).num_bytes for s in ("train", "eval")]
    assert sum(sizes) == sum(len(t.encode()) for t in texts)
    content = (Path(store_path) / "manifest.json").read_text()
    assert str(Path(store_path).parent) not in content
    assert tokenizer.load(opened.tokenizer_path).vocab_size == opened.vocab_size


def test_windows_cover_the_stream_once(store_path, naive):
    stream = naive["train"][0]
    opened = Store.open(store_path, "train")
    for length, stride in ((129, 128), (128, 128), (700, 300), (len(stream) + 5, 7)):
        windows = Windows(opened, length, stride)
        tokens, documents = windows.read(np.arange(len(windows)))
        first = tokens[0].tolist() + tokens[1:, length - stride :].ravel().tolist()
        assert first[: len(stream)] == stream[: len(first)]
        assert len(first) >= len(stream)
        assert len(first) - len(stream) < max(stride, length - len(stream) + 1)
        assert ((documents == -1) == (np.cumsum(tokens[:, ::-1], axis=1)[:, ::-1] == 0)).all()


def test_uint32_tokens(tmp_path, store_path):
    """Ids above 65,535 survive the writer and the reader."""
    from lmjax.data.writer import SplitWriter

    folder = tmp_path / "s"
    shutil.copytree(store_path, folder)
    ids = np.arange(70_000, 75_000, dtype="<u4")
    writer = SplitWriter(str(folder), "train", np.dtype("<u4"), 2048, 4096)
    writer.add(ids, np.array([5000]), np.zeros(1, store.ORIGIN_DTYPE), 1)
    said = json.loads((folder / "manifest.json").read_text())
    said |= {"dtype": chunks.token_dtype(75_000).name, "splits": {"train": writer.finish()}}
    writer.close()

    def with_ids(vocab_size):
        ids = tokenizer.IdsTokenizer(vocab_size, {})
        ids.save(folder / "tokenizer")
        said["tokenizer"] |= {"vocab_size": vocab_size, "sha256": ids.sha256}
        (folder / "manifest.json").write_text(json.dumps(manifest.sealed(said)))

    with_ids(75_000)
    opened = Store.open(folder, "train")
    assert np.array_equal(opened.read(np.array([0]), 5000)[0], ids)
    verify.verify(folder)
    with_ids(74_999)
    with pytest.raises(UserError, match="id 74999 is outside the vocabulary"):
        verify.verify(folder)


LENGTHS_OF_DOCUMENTS = {
    "even": lambda rng: rng.integers(1, 2000, 50_000),
    "heavy tail": lambda rng: (rng.pareto(0.5, 50_000) + 1).clip(max=1e9).astype(np.int64),
    "long, then short": lambda rng: np.repeat([10**7, 1], [500, 49_500]),
    "short, then long": lambda rng: np.repeat([1, 10**7], [49_500, 500]),
    "each longer than the last": lambda rng: (1.0005 ** np.arange(50_000)).astype(np.int64),
}


@pytest.mark.parametrize("kind", LENGTHS_OF_DOCUMENTS)
def test_pages_are_few_whatever_the_lengths(tmp_path, monkeypatch, kind):
    rng = np.random.default_rng(0)
    lengths = LENGTHS_OF_DOCUMENTS[kind](rng)
    starts, num_tokens = np.cumsum(lengths) - lengths, int(lengths.sum())
    np.save(tmp_path / "starts.npy", starts.astype("<u8"))
    pages, read = [], document_index.DocumentIndex._read
    monkeypatch.setattr(document_index, "_MAPPED_DOCUMENTS", 0)
    monkeypatch.setattr(document_index, "_PAGE", 16)
    monkeypatch.setattr(
        document_index.DocumentIndex, "_read", lambda *a: (pages.append(1), read(*a))[1]
    )
    index = document_index.DocumentIndex(str(tmp_path / "starts.npy"), len(starts), num_tokens)
    position = np.concatenate([rng.integers(0, num_tokens, 500), rng.choice(starts, 500)])
    documents, num_more, _ = index.find(position, position + 1)
    assert (documents == np.searchsorted(starts, position, side="right") - 1).all()
    assert not num_more.any()
    assert len(pages) / 1000 < (4 if kind == "even" else 20)


def test_shards_are_closed_again(store_path, monkeypatch):
    monkeypatch.setattr(shard_readers, "_MAX_OPEN", 2)
    opened = Store.open(store_path, "train")
    starts = np.arange(0, opened.num_tokens, 1000)
    expected = Store.open(store_path, "train").read(starts, 700)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: opened.read(starts, 700), range(32)):
            assert np.array_equal(got, expected)
    assert len(opened._readers._open) == 2
    if before:
        assert len(list(descriptors.iterdir())) <= before + 2


def test_pickles_small_and_is_shared_by_threads(store_path):
    opened = Store.open(store_path, "train")
    starts = np.arange(0, 20_000, 97)
    expected = opened.read(starts, 300)
    data = pickle.dumps(opened)
    assert len(data) < 10_000
    assert np.array_equal(pickle.loads(data).read(starts, 300), expected)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: opened.read(starts, 300), range(16)):
            assert np.array_equal(got, expected)


def test_misuse(store_path):
    opened = Store.open(store_path, "train")
    with pytest.raises(ValueError, match=">= 0"):
        opened.read(np.array([-1]), 5)
    with pytest.raises(ValueError, match="stride"):
        Windows(opened, 4, 5)
    with pytest.raises(UserError, match="no 'test' split"):
        Store.open(store_path, "test")
    with pytest.raises(UserError, match="not a prepared store"):
        Store.open(Path(store_path).parent, "train")


@pytest.fixture
def copy(store_path, tmp_path):
    shutil.copytree(store_path, tmp_path / "copy")
    return tmp_path / "copy"


FILES = ("train-00001.arrayrecord", "train.starts.npy", "train.origin.npy")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("fault", ["truncated", "empty", "missing"])
def test_incomplete_files_are_refused_at_opening(copy, file, fault):
    path = copy / file
    content = path.read_bytes()
    path.unlink()
    if fault != "missing":
        path.write_bytes(content[: len(content) // 2] if fault == "truncated" else b"")
    with pytest.raises(UserError, match=file):
        Store.open(copy, "train")


@pytest.mark.parametrize("file", [*FILES, "tokenizer/tokenizer.model"])
def test_verify_finds_a_flipped_bit(copy, file):
    verify.verify(copy)
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 4
    (copy / file).write_bytes(content)
    with pytest.raises(UserError, match=file):
        verify.verify(copy)


def test_verify_checks_what_no_sha256_can(copy):
    """Files that are as the manifest says, and make no sense."""
    said = json.loads((copy / "manifest.json").read_text())
    entry = said["splits"]["train"]

    def damaged(name, change, message):
        file, original = copy / entry[name]["file"], dict(entry[name])
        content, array = file.read_bytes(), np.load(file)
        change(array)
        np.save(file, array)
        entry[name] |= {"sha256": files.sha256(file)}
        (copy / "manifest.json").write_text(json.dumps(manifest.sealed(said)))
        with pytest.raises(UserError, match=message):
            verify.verify(copy)
        file.write_bytes(content)
        entry[name] = original

    damaged("starts", lambda a: np.put(a, [5, 6], a[[6, 5]]), "starts.npy.*out of order")
    damaged("starts", lambda a: np.put(a, 0, 1), "starts.npy.*out of order")
    damaged("starts", lambda a: np.put(a, -1, 10**9), "starts.npy.*out of order")
    damaged("origin", lambda a: np.put(a["file"], 3, 2), "origin.npy.*out of range")
    entry["shards"].pop()
    (copy / "manifest.json").write_text(json.dumps(manifest.sealed(said)))
    with pytest.raises(UserError, match="train has not the shards of its tokens"):
        verify.verify(copy)


def test_verify_says_how_far_it_is(store_path):
    seen = []
    verify.verify(store_path, lambda done, total, tokens=None: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_a_corrupt_record_is_named(copy):
    file = copy / "train-00001.arrayrecord"
    content = bytearray(file.read_bytes())
    for i in range(1000, 1100):
        content[i] ^= 0xFF
    file.write_bytes(content)
    opened = Store.open(copy, "train")
    windows = np.arange(0, opened.num_tokens, 2048)
    with pytest.raises(UserError, match=r"train-00001\.arrayrecord: record \d is corrupt"):
        opened.read(windows, 2048)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}'])
def test_damaged_or_unknown_manifest(copy, content):
    (copy / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        Store.open(copy, "train")
