"""A store of 10^9 documents, simulated: sparse index files, and one shard under many names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmjax.data import files, store
from lmjax.data.writer import SplitWriter

BLOCK, BLOCKS = 2048, 8192
CYCLE = 1 << 14  # of the tokens; divides a shard

MEASURE = """
import json, os, sys, time
import numpy as np
from lmjax.data import document_index, shard_readers
from lmjax.data.store import Store
from lmjax.data.windows import Windows

def rss():
    with open("/proc/self/status") as status:
        return sum(int(l.split()[1]) for l in status if l.startswith("VmRSS")) >> 10

pages = []
read = document_index.DocumentIndex._read
document_index.DocumentIndex._read = lambda *args: pages.append(1) or read(*args)
began = time.monotonic()
store = Store.open(sys.argv[1], "train")
windows = Windows(store, 513, 512)
rng = np.random.default_rng(0)
windows.read(rng.integers(0, len(windows), 64))
result = {"start_seconds": time.monotonic() - began, "start_rss": rss()}
result["origin"] = store.origin(store.num_documents - 1)
pages.clear()
index = rng.integers(0, len(windows), (50, 20))
began = time.monotonic()
for rows in index:
    tokens, documents = windows.read(rows)
    starts = rows * 512
    expected = (starts[:, None] + np.arange(513)) % (1 << 14) + 5
    assert (tokens == np.where(documents < 0, 0, expected)).all()
    step = store.num_tokens // int(sys.argv[2])
    first = store.num_documents - int(sys.argv[2])
    assert (documents[:, 0] == first + np.minimum(starts // step, int(sys.argv[2]) - 1)).all()
result["milliseconds_per_window"] = (time.monotonic() - began)
result["rss_growth"] = rss() - result["start_rss"]
result["pages_per_window"] = len(pages) / 1000
began = time.monotonic()
for rows in index:
    store.documents_at(rows * 512, 513)
result["documents_at_microseconds"] = 1e3 * (time.monotonic() - began)
near = rng.integers(0, 4 * 2**24, (50, 20))
store.read(near[0], 513)
began = time.monotonic()
for starts in near:
    store.read(starts, 513)
result["open_shards_microseconds"] = 1e3 * (time.monotonic() - began)
result["files"] = len(os.listdir("/proc/self/fd"))
result["max_open"] = shard_readers.max_open()
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """(a shard of 2^24 tokens, its manifest entry)."""
    folder = tmp_path_factory.mktemp("shard")
    size = BLOCK * BLOCKS
    writer = SplitWriter(str(folder), "train", np.dtype("<u2"), BLOCK, size)
    tokens = (np.arange(size) % CYCLE + 5).astype("<u2")
    writer.add(tokens, np.array([size]), np.zeros(1, store.ORIGIN_DTYPE), size)
    (entry,) = writer.finish()["shards"]
    writer.close()
    return folder / entry["file"], entry


def make(folder, shard, num_shards, num_documents, num_real):
    """A store whose last `num_real` documents are equally long, and all before them empty."""
    file, entry = shard
    folder.mkdir()
    shards = [{**entry, "file": f"train-{i:05d}.arrayrecord"} for i in range(num_shards)]
    for link in shards:
        os.link(file, folder / link["file"])
    num_tokens = num_shards * BLOCK * BLOCKS
    starts = np.arange(num_real, dtype="<u8") * (num_tokens // num_real)
    origin = np.zeros(num_real, store.ORIGIN_DTYPE)
    origin["record"] = np.arange(num_documents - num_real, num_documents)
    split = {"num_tokens": num_tokens, "num_documents": num_documents, "num_bytes": num_tokens}
    split["shards"] = shards
    for name, array in (("starts", starts), ("origin", origin)):
        path = folder / f"train.{name}.npy"
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False}
        with path.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, header | {"shape": (num_documents,)})
            out.seek((num_documents - num_real) * array.dtype.itemsize, os.SEEK_CUR)
            out.write(array.tobytes())
        size = path.stat().st_size
        sha256 = files.sha256(path) if size <= store._HASHED_BYTES else "0" * 64
        split[name] = {"file": path.name, "bytes": size, "sha256": sha256}
    manifest = {
        "format": 1,
        "dtype": "uint16",
        "block_size": BLOCK,
        "tokenizer": {"vocab_size": 32_000, "sha256": "0" * 64},
        "inputs": [{"name": "a.jsonl.zst", "bytes": 1}],
        "settings": {},
        "counts": {},
        "splits": {"train": split},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def measure(folder, num_real):
    command = [sys.executable, "-c", MEASURE, str(folder), str(num_real)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for its memory")
def test_a_billion_documents(shard, tmp_path):
    make(tmp_path / "large", shard, 4096, 10**9, 10**6)
    make(tmp_path / "small", shard, 4, 10**5, 10**5)
    large, small = measure(tmp_path / "large", 10**6), measure(tmp_path / "small", 10**5)
    print(json.dumps({"large": large, "small": small}, indent=1))
    assert large["origin"] == ["a.jsonl.zst", 10**9 - 1]
    assert large["start_seconds"] < 5
    assert large["rss_growth"] < 150  # MiB; 1024 readers with their indexes are 79
    assert large["files"] <= large["max_open"] + 64
    assert large["pages_per_window"] < 30
    # An access to what is open costs the same, up to the noise of a shared machine.
    assert large["open_shards_microseconds"] < 5 * small["open_shards_microseconds"]
    assert large["documents_at_microseconds"] < 5000
