"""Faults of data, row by row of the table in docs/reliability.md, through the real process.

What the readers do with each kind of damage is told by tests/data and tests/fuzz; here it is what
a run makes of it: a code, one last line, and a workdir that is as it was.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
import small_run
from faulty import run

from lmjax.data import prepare, store, tokenizer_training
from lmjax.train import metrics

pytestmark = pytest.mark.slow

LINES = small_run.CORPUS.read_text().splitlines(keepends=True)
MEMORY_MIB = 1200  # of preparing 50 MB of one line, where the imports alone take 200
REFUSED = ("metrics.jsonl", "ledger.jsonl", "config.json")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Two of one size, of different text."""
    folder, found = tmp_path_factory.mktemp("tokenizers"), []
    for number in range(2):
        text, output = folder / f"{number}.jsonl", folder / str(number)
        text.write_text("".join(LINES[60 * number : 60 * number + 60]))
        size = {"vocab_size": 400, "model_type": "bpe", "sample_bytes": 100_000}
        tokenizer_training.train([str(text)], output, **size)
        found.append(output)
    return found


@pytest.fixture(scope="module")
def make_store(tokenizers, tmp_path_factory):
    """Makes a store of several shards, of lines of JSON."""

    def make_store(lines, output, tokenizer=None):
        text = tmp_path_factory.mktemp("text") / "text.jsonl"
        text.write_text("".join(lines))
        size = {"eval_fraction": 0.1, "num_workers": 1, "shard_tokens": 2 * 2048}
        prepare.prepare([str(text)], tokenizer or tokenizers[0], output, **size)
        return output

    return make_store


@pytest.fixture(scope="module")
def original(make_store, tmp_path_factory):
    return make_store(LINES[:60], tmp_path_factory.mktemp("original") / "store")


@pytest.fixture
def data(original, tmp_path):
    """A store to be damaged."""
    return shutil.copytree(original, tmp_path / "store")


@pytest.fixture(scope="module")
def begin(compiled, tmp_path_factory):
    """Starts a run on a text or store."""
    folder = tmp_path_factory.mktemp("configs")

    def begin(workdir, path, *arguments, fault=""):
        file = folder / "gpt2.py"
        file.write_text(small_run.config(path, folder / "cache"))
        more = ["--config.log.ledger=True", *arguments]
        where = [f"--config={file}", f"--workdir={workdir}"]
        return run(*where, *more, fault=fault, JAX_COMPILATION_CACHE_DIR=compiled)

    return begin


@pytest.fixture(scope="module")
def resume(compiled):
    """Goes on with the run of a workdir."""

    def resume(workdir, *arguments):
        return run(f"--workdir={workdir}", *arguments, JAX_COMPILATION_CACHE_DIR=compiled)

    return resume


@pytest.fixture(scope="module")
def moved(original, begin, tmp_path_factory):
    """(workdir, store) of a finished run, whose store is its own."""
    folder = tmp_path_factory.mktemp("finished")
    data = shutil.copytree(original, folder / "store")
    ended = begin(folder / "run", data)
    assert ended.code == 0, ended.err
    return folder / "run", data


def assert_refused(ended, *parts):
    """One line of cause and fix, and no traceback anywhere."""
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.out + ended.err
    assert ended.last.startswith("error: ")
    assert "; " in ended.last
    for part in parts:
        assert part in ended.last
    assert "compil" not in ended.out + ended.err


def content(workdir):
    steps = small_run.saved_steps(workdir)
    return steps, {name: (workdir / name).read_bytes() for name in REFUSED}


def test_a_corrupt_record_is_named(begin, data, tmp_path):
    file = data / "train-00001.arrayrecord"
    found = bytearray(file.read_bytes())
    for place in range(1000, 1100):
        found[place] ^= 0xFF
    file.write_bytes(found)
    ended = begin(tmp_path / "run", data)
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert f"error: {file}: record 0 is corrupt; copy the store again" in ended.last


def test_an_incomplete_shard_is_refused_at_the_start(begin, data, tmp_path):
    """An empty or missing one is seen at the same place: tests/data/test_store.py."""
    file = data / "train-00001.arrayrecord"
    size = file.stat().st_size
    os.truncate(file, size // 2)
    ended = begin(tmp_path / "run", data)
    assert_refused(ended, f"{file}: has {size // 2} bytes, not {size}")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_bad_records_are_counted_and_the_rest_is_read(begin, tokenizers, tmp_path):
    bad = [
        b'{"text": "bad \xff byte"}\n',
        b'{"text": "unclosed\n',
        b'{"text": ""}\n',
        b'{"text": "nul \\u0000 and CRLF"}\r\n',
    ]
    lines = [line.encode() for line in LINES[:60]]
    text = tmp_path / "text.jsonl"
    text.write_bytes(b"\xef\xbb\xbf" + b"".join(lines[:30] + bad + lines[30:]))
    settings = [f"--config.data.cache_dir={tmp_path / 'cache'}"]
    settings += [f"--config.tokenizer.path={tokenizers[0]}"]
    assert begin(tmp_path / "run", text, *settings, fault="kill@step:1").code == -9
    (folder,) = (tmp_path / "cache" / "stores").glob("*/manifest.json")
    manifest = json.loads(folder.read_text())
    assert manifest["counts"] == {"bad_utf8": 1, "bad_json": 1, "empty": 1, "nul_removed": 1}
    assert sum(split["num_documents"] for split in manifest["splits"].values()) == 61
    log = (tmp_path / "run" / "lmjax.log").read_text()
    assert "1 not UTF-8" in log
    assert "1 not JSON" in log


def test_a_line_of_50_mb_takes_bounded_memory(tokenizers, tmp_path):
    """And is all there: a document of millions of tokens, in many shards' blocks."""
    words = "the white whale of the sea \\u00e9 "
    with (tmp_path / "text.jsonl").open("w") as file:
        file.write('{"text": ""}\n{"text": "' + words * (50_000_000 // len(words)) + '"}\n')
        file.write('{"text": "the last"}\n')
    # Its own peak: what the system says of a child that ended counts the parent's before `exec`.
    code = (
        "import sys; from lmjax.data import prepare; "
        "prepare.prepare([sys.argv[1]], sys.argv[2], sys.argv[3], eval_fraction=0, num_workers=1); "
        "print([line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line][0])"
    )
    arguments = map(str, (tmp_path / "text.jsonl", tokenizers[0], tmp_path / "store"))
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.PIPE
    )
    assert int(ended.stdout.split()[-1]) >> 10 < MEMORY_MIB
    manifest, _ = store.read_manifest(tmp_path / "store")
    assert manifest["counts"] == {"empty": 1}
    assert manifest["splits"]["train"]["num_documents"] == 2
    assert manifest["splits"]["train"]["num_bytes"] > 40_000_000


def test_another_tokenizer_is_refused(moved, resume, make_store, tokenizers, original):
    """In the store, behind the manifest's back; or with a store of its own in the same place."""
    workdir, data = moved
    before = content(workdir)
    shutil.rmtree(data / "tokenizer")
    shutil.copytree(tokenizers[1], data / "tokenizer")
    ended = resume(workdir)
    assert_refused(ended, f"{data / 'tokenizer'}: not the tokenizer of this store")
    shutil.rmtree(data)
    make_store(LINES[:60], data, tokenizers[1])
    assert_refused(resume(workdir), "data or tokenizer have changed")
    assert content(workdir) == before
    shutil.rmtree(data)
    shutil.copytree(original, data)


@pytest.mark.parametrize("change", ["changed", "reordered"])
def test_other_data_is_refused(moved, resume, make_store, original, change):
    workdir, data = moved
    before = content(workdir)
    shutil.rmtree(data)
    make_store(LINES[:60][::-1] if change == "reordered" else LINES[1:61], data)
    assert_refused(resume(workdir), "data or tokenizer have changed", "another --workdir")
    assert content(workdir) == before
    shutil.rmtree(data)
    shutil.copytree(original, data)


def test_more_ids_than_rows_are_refused_before_compiling(begin, original, tmp_path):
    ended = begin(tmp_path / "run", original, "--config.model.vocab_size=128")
    assert_refused(ended, "400 ids", "128 rows")


def test_what_belongs_to_the_recipe_stays(moved, resume):
    workdir, _ = moved
    before = content(workdir)
    ended = resume(workdir, "--config.optimizer.learning_rate=0.5")
    assert_refused(ended, "config.optimizer.learning_rate", "0.01", "0.5")
    assert content(workdir) == before


def test_what_does_not_is_changed_and_recorded(moved, resume, tmp_path):
    workdir = shutil.copytree(moved[0], tmp_path / "run")
    ended = resume(workdir, "--config.log.every=1", "--config.train.num_steps=26")
    assert ended.code == 0, ended.err
    changes = json.loads((workdir / "config.json").read_text())["changes"]
    assert changes == [
        {"field": "log.every", "from": 3, "to": 1},
        {"field": "train.num_steps", "from": 24, "to": 26},
    ]
    steps = [row["step"] for row in metrics.read(workdir / "metrics.jsonl")]
    assert {24, 25, 26} <= set(steps)


def test_workers_change_no_batch(moved, begin, original, tmp_path):
    """As tests/data/test_pipeline.py says of 0 to 3, by what a whole run wrote of its batches."""
    ended = begin(tmp_path / "run", original, "--config.data.num_workers=3")
    assert ended.code == 0, ended.err
    for name in ("ledger.jsonl", "metrics.jsonl"):
        mine, theirs = (metrics.read(w / name) for w in (tmp_path / "run", moved[0]))
        assert small_run.comparable(mine) == small_run.comparable(theirs)
