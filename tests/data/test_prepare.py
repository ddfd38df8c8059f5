"""Preparation: same bytes whatever the workers and however often it is killed; held-out split."""

import filecmp
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmjax.data import cache, chunks, files, journal, prepare, store, tokenizer, verify
from lmjax.errors import UserError

SHARD = 2 * 2048


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNK_CHARS", 5000)


def write_jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return path


def run(corpus, tokenizer_path, output, **kwargs):
    settings = {"eval_fraction": 0.1, "num_workers": 2, "shard_tokens": SHARD, **kwargs}
    return prepare.prepare(files.find_files(str(corpus)), tokenizer_path, output, **settings)


def same(a, b):
    names = sorted(str(p.relative_to(a)) for p in Path(a).rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(b)) for p in Path(b).rglob("*") if p.is_file())
    return filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


@pytest.fixture
def reference(corpus, tokenizer_path, tmp_path):
    run(corpus, tokenizer_path, tmp_path / "reference")
    return tmp_path / "reference"


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_do_not_matter(corpus, tokenizer_path, reference, tmp_path, num_workers):
    run(corpus, tokenizer_path, tmp_path / "other", num_workers=num_workers)
    assert same(reference, tmp_path / "other")


@pytest.mark.parametrize("after", [1, 20_000, 60_000])
def test_going_on_after_an_exception(corpus, tokenizer_path, reference, tmp_path, after):
    class StopError(Exception):
        pass

    seen = []

    def progress(done, total, tokens):
        assert 0 <= done <= total
        seen.append(tokens)
        if tokens >= after:
            raise StopError

    output, lines = tmp_path / "other", []
    with pytest.raises(StopError):
        run(corpus, tokenizer_path, output, progress=progress)
    assert not store.is_store(output)
    seen.clear()
    after = 10**9
    run(corpus, tokenizer_path, output, progress=progress, log=lines.append)
    assert same(reference, output)
    if seen[0] > 20_000:
        assert "going on" in lines[0]


KILLED = """
import os, signal, sys
from lmjax.data import chunks, files, prepare
chunks._CHUNK_CHARS = 5000
def progress(done, total, tokens):
    if tokens > int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
prepare.prepare(files.find_files(sys.argv[1]), sys.argv[2], sys.argv[3], eval_fraction=0.1,
                num_workers=2, shard_tokens=4096, progress=progress)
"""


def test_going_on_after_two_kills(corpus, tokenizer_path, reference, tmp_path):
    output = tmp_path / "other"
    for tokens in (15_000, 45_000):
        args = [sys.executable, "-c", KILLED, corpus, tokenizer_path, output, str(tokens)]
        assert subprocess.run(args, check=False).returncode == -signal.SIGKILL
        assert (output / "progress.json").exists()
        with pytest.raises(UserError, match="not a prepared store"):
            store.Store.open(output, "train")
    run(corpus, tokenizer_path, output)
    assert same(reference, output)


@pytest.mark.parametrize("after", [1, 2, 5])
def test_going_on_from_a_journal_older_than_the_last_shard(
    corpus, tokenizer_path, reference, tmp_path, monkeypatch, after
):
    """A kill between the end of a shard and the journal that knows of it."""
    saves, save = [], journal.save

    def killed(folder, meta):
        saves.append(meta)
        if len(saves) > after:
            raise KeyboardInterrupt
        save(folder, meta)

    output, lines = tmp_path / "other", []
    monkeypatch.setattr(journal, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tokenizer_path, output)
    monkeypatch.undo()
    monkeypatch.setattr(chunks, "_CHUNK_CHARS", 5000)
    shards = [sum(len(s["shards"]) for s in meta["splits"].values()) for meta in saves]
    assert shards[-1] > shards[-2]
    run(corpus, tokenizer_path, output, log=lines.append)
    assert "going on" in lines[0]
    assert same(reference, output)


def test_shards_grow_with_the_input():
    """Small inputs keep their layout for ever; no store has more shards than a folder can bear."""
    gib = 1 << 30
    layout = lambda name, size: prepare.layout([f"x{name}", "y.jsonl"], [size, 0])
    assert layout(".jsonl", 0) == layout(".jsonl", 256 * gib) == (2048, 1 << 24)
    assert layout(".jsonl.zst", 64 * gib) == (2048, 1 << 24)
    assert layout(".parquet", 64 * gib + 1) == layout(".txt", 256 * gib + 4) == (4096, 1 << 25)
    assert layout(".jsonl", 4 * 10**12) == (1 << 15, 1 << 28)  # 10^12 tokens
    assert layout(".jsonl", 10**15) == (1 << 15, 1 << 28)


def test_a_store_of_longer_blocks(corpus, tokenizer_path, reference, tmp_path, monkeypatch):
    """The same stream, laid out as that of a huge input."""
    monkeypatch.setattr(prepare, "layout", lambda files, sizes: (8192, 16_384))
    manifest = run(corpus, tokenizer_path, tmp_path / "large", shard_tokens=None)
    assert (manifest["block_size"], manifest["settings"]["shard_tokens"]) == (8192, 16_384)
    verify.verify(tmp_path / "large")
    for split in ("train", "eval"):
        assert decoded(tmp_path / "large", split) == decoded(reference, split)
    assert run(corpus, tokenizer_path, tmp_path / "large", shard_tokens=None) == manifest


@pytest.mark.parametrize("fault", ["journal", "shard", "index", "tokens"])
def test_an_unusable_journal_means_starting_afresh(
    corpus, tokenizer_path, reference, tmp_path, fault
):
    def stop(done, total, tokens):
        if tokens > 30_000:
            raise KeyboardInterrupt

    output = tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tokenizer_path, output, progress=stop)
    names = {"journal": "progress.json", "shard": "train-00000.arrayrecord"}
    path = output / names.get(fault, "train.starts.raw")
    if fault == "tokens":  # as after a power cut: the length is right
        (path,) = output.glob("train-*.tokens.raw")
        path.write_bytes(bytes(len(path.read_bytes())))
    else:
        path.write_bytes(path.read_bytes()[:100])
    run(corpus, tokenizer_path, output)
    assert same(reference, output)


def test_other_settings_do_not_go_on_with_a_journal(corpus, tokenizer_path, tmp_path):
    def stop(done, total, tokens):
        if tokens > 30_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(corpus, tokenizer_path, tmp_path / "a", progress=stop)
    run(corpus, tokenizer_path, tmp_path / "a", eval_fraction=0.3)
    run(corpus, tokenizer_path, tmp_path / "b", eval_fraction=0.3)
    assert same(tmp_path / "a", tmp_path / "b")


def test_finished_stores_are_reused_or_refused(corpus, tokenizer_path, reference):
    lines, before = [], (reference / "manifest.json").stat().st_mtime_ns
    run(corpus, tokenizer_path, reference, log=lines.append)
    assert "finished already" in lines[0]
    assert (reference / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="finished store of other eval_fraction"):
        run(corpus, tokenizer_path, reference, eval_fraction=0.2)
    with pytest.raises(UserError, match="finished store of other inputs"):
        run(f"{corpus}/a.jsonl", tokenizer_path, reference)


def decoded(folder, split):
    opened = store.Store.open(folder, split)
    model = tokenizer.load(opened.tokenizer_path)
    (stream,) = opened.read(np.array([0]), opened.num_tokens)
    return [model.decode(ids) for ids in np.split(stream, np.flatnonzero(stream == 1) + 1)[:-1]]


def test_held_out_by_hash(corpus, tokenizer_path, texts, tmp_path):
    """Duplicates fall on one side, and more text does not move a document across."""
    write_jsonl(tmp_path / "twice.jsonl", texts + texts[::-1] + ["only here"])
    run(tmp_path / "twice.jsonl", tokenizer_path, tmp_path / "twice")
    run(corpus, tokenizer_path, tmp_path / "once")
    train, held_out = (decoded(tmp_path / "once", s) for s in ("train", "eval"))
    assert sorted(train + held_out) == sorted(texts)
    assert not set(train) & set(held_out)
    assert 0.03 < len(held_out) / len(texts) < 0.2
    assert not set(decoded(tmp_path / "twice", "train")) & set(held_out)
    assert not set(decoded(tmp_path / "twice", "eval")) & set(train)


@pytest.mark.parametrize("fraction", [1e-9, 0.999999])
def test_neither_side_is_empty(tokenizer_path, tmp_path, fraction):
    texts = ["one", "two", "two", "three"]
    source = write_jsonl(tmp_path / "x.jsonl", texts)
    lines = []
    run(source, tokenizer_path, tmp_path / "out", eval_fraction=fraction, log=lines.append)
    train, held_out = (decoded(tmp_path / "out", s) for s in ("train", "eval"))
    assert sorted(train + held_out) == sorted(texts)
    assert len(set(train if fraction > 0.5 else held_out)) == 1
    assert "moved" in lines[0]


@pytest.mark.parametrize("fraction", [1e-9, 0.999999])
def test_a_single_document_is_trained_on(tokenizer_path, tmp_path, fraction):
    source = write_jsonl(tmp_path / "x.jsonl", ["one"])
    lines = []
    manifest = run(source, tokenizer_path, tmp_path / "o", eval_fraction=fraction, log=lines.append)
    assert list(manifest["splits"]) == ["train"]
    assert "nothing is held out" in lines[0]
    with pytest.raises(UserError, match="no 'eval' split"):
        store.Store.open(tmp_path / "o", "eval")


def test_a_document_longer_than_a_shard(tokenizer_path, tmp_path):
    long = "whale of a time " * 20_000
    source = write_jsonl(tmp_path / "x.jsonl", ["short", long, "last"])
    run(source, tokenizer_path, tmp_path / "out", eval_fraction=0)
    assert decoded(tmp_path / "out", "train") == ["short", long, "last"]
    verify.verify(tmp_path / "out")


def test_counts_reach_the_manifest(tokenizer_path, tmp_path):
    source = write_jsonl(tmp_path / "x.jsonl", ["one", "", "tw\0o"])
    source.write_bytes(source.read_bytes() + b"{\n\xff\n")
    manifest = run(source, tokenizer_path, tmp_path / "out", eval_fraction=0)
    assert manifest["counts"] == {"bad_json": 1, "bad_utf8": 1, "empty": 1, "nul_removed": 1}
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())


def test_faults(corpus, tokenizer_path, tmp_path):
    source = write_jsonl(tmp_path / "x.jsonl", ["", " "])
    with pytest.raises(UserError, match=r"no documents \(skipped: 2 empty\)"):
        run(source, tokenizer_path, tmp_path / "out")
    with pytest.raises(UserError, match="cannot be written"):
        run(corpus, tokenizer_path, source / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"other files \(thesis\.tex\)"):
        run(corpus, tokenizer_path, tmp_path / "full")
    with pytest.raises(UserError, match="not a tokenizer"):
        run(corpus, tmp_path, tmp_path / "out")


LIMITED = """
import resource, signal, sys
from lmjax.data import files, prepare
from lmjax.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
try:
    prepare.prepare(files.find_files(sys.argv[1]), sys.argv[2], sys.argv[3], shard_tokens=1 << 16)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("limit", "where"), [(20_000, "out"), (1 << 17, "train-00000.arrayrecord")]
)
def test_a_disk_that_takes_no_more(corpus, tokenizer_path, tmp_path, limit, where):
    """A limit on the size of files stands in for a full disk: before a shard, and in its middle."""
    output = tmp_path / "out"
    args = [sys.executable, "-c", LIMITED, corpus, tokenizer_path, str(output), str(limit)]
    result = subprocess.run(args, check=True, capture_output=True, text=True)
    assert f"{where}: cannot be written" in result.stdout
    assert not store.is_store(output)
    prepare.prepare(files.find_files(corpus), tokenizer_path, output)
    verify.verify(output)


def _ensure(path, cache_dir, log, **kwargs):
    settings = {
        "tokenizer_path": None,
        "vocab_size": 400,
        "model_type": "bpe",
        "character_coverage": 0.9995,
        "sample_bytes": 100_000,
        "text_key": "text",
        "text_split": "file",
        "eval_fraction": 0.1,
        "num_workers": 1,
        **kwargs,
    }
    return cache.ensure_store(str(path), cache_dir=str(cache_dir), log=log, **settings)


def test_cache_prepares_once(texts, tokenizer_path, tmp_path):
    source = write_jsonl(tmp_path / "x.jsonl", texts)
    lines = []
    folder = _ensure(source, tmp_path / "cache", lines.append)
    first = len(lines)
    assert store.Store.open(folder, "train").vocab_size == 400
    assert _ensure(source, tmp_path / "cache", lines.append) == folder
    assert any("before" in line for line in lines[first:])
    assert not any("training" in line for line in lines[first:])
    other = _ensure(source, tmp_path / "cache", lines.append, tokenizer_path=tokenizer_path)
    assert other != folder
    source.write_text(source.read_text() + '{"text": "more"}\n')
    assert _ensure(source, tmp_path / "cache", lines.append) not in (folder, other)


def test_prepared_stores_are_used_in_place(store_path, any_tokenizer, tokenizer_path, tmp_path):
    lines = []
    assert _ensure(store_path, tmp_path, lines.append) == store_path
    assert _ensure(store_path, tmp_path, lines.append, tokenizer_path=tokenizer_path) == store_path
    if tokenizer.load(any_tokenizer).sha256 != tokenizer.load(tokenizer_path).sha256:
        with pytest.raises(UserError, match="another tokenizer"):
            _ensure(store_path, tmp_path, lines.append, tokenizer_path=any_tokenizer)
    assert not list(tmp_path.iterdir())


def test_held_out_text_of_its_own(store_path, tmp_path):
    source = write_jsonl(tmp_path / "x.jsonl", ["held out one", "held out two"])
    settings = {
        "text_key": "text",
        "text_split": "file",
        "cache_dir": str(tmp_path / "cache"),
        "num_workers": 1,
        "log": lambda line: None,
    }
    (held_out,) = cache.open_eval(str(source), [store_path], **settings)
    assert held_out.num_documents == 2
    train = store.Store.open(store_path, "train")
    assert held_out.manifest["tokenizer"] == train.manifest["tokenizer"]
    assert cache.open_eval(None, [store_path], **settings)[0].split == "eval"
    with pytest.raises(UserError, match="what it trains on"):
        cache.open_eval(store_path, [store_path], **settings)


def test_lock_file_lies_beside_the_store(reference):
    assert "lock" not in "".join(os.listdir(reference))
