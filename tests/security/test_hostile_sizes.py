"""Claims of files that no memory holds: refused in one line before any is taken.

The address space is limited while a file is read, so that whoever takes a claim at its word fails.
"""

import contextlib
import io
import json
import shutil
import struct

import hostile
import numpy as np
import published
import published_tokenizers
import pytest
import safetensors.numpy
import tensorstore
import tool_run
from hostile import with_file, with_manifest

from lmjax.data import (
    json_lines,
    labelled,
    store,
    tokenizer_folder,
    verify,
)
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.errors import UserError
from lmjax.export import from_hf, imported_tokenizer
from lmjax.hf import tensors as tensors_lib
from lmjax.hf.tensors import Tensors
from lmjax.train import trained, workdir

resource = pytest.importorskip("resource", reason="limits memory as POSIX does")
ROOM = 1 << 30
HUGE = 10**15
DEEP = "[" * 100_000


@contextlib.contextmanager
def little_memory():
    """At most a GiB more than now."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused(call, message):
    """Asserts that a call is refused with `message`, and takes no memory for it."""
    with little_memory():
        hostile.refused(call, message)


@pytest.mark.skipif(not shutil.os.path.exists("/proc/self/statm"), reason="asks Linux")
def test_the_limit_is_one():
    with little_memory(), pytest.raises(MemoryError):
        np.zeros(2 * ROOM, np.uint8)
    assert np.zeros(2 * ROOM, np.uint8).nbytes == 2 * ROOM


def with_header(folder, header, data=b"", size=None):
    """A folder whose safetensors have this header, an object or its bytes."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(content) if size is None else size
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", size) + content + data)


def entry(shape, begin=0, end=4, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAME = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":%b}'
HEADERS = {
    "huge": {"a": entry([HUGE])},
    "huge with its bytes": {"a": entry([HUGE], 0, 4 * HUGE)},
    "a product that overflows": {"a": entry([2**40, 2**40])},
    "one that wraps around to 4 bytes": {"a": entry([2**32, 2**32, 1])},
    "negative": {"a": entry([-1])},
    "twice negative": {"a": entry([-1, -1])},
    "not whole": {"a": entry([1.0])},
    "no list": {"a": entry(4)},
    "true": {"a": entry([True])},
    "overlapping": {"a": entry([1], 0, 4), "b": entry([1], 0, 4)},
    "half overlapping": {"a": entry([2], 0, 8), "b": entry([2], 4, 12)},
    "with a hole": {"a": entry([1], 0, 4), "b": entry([1], 8, 12)},
    "beyond the end": {"a": entry([1], 4, 8)},
    "backwards": {"a": entry([0], 4, 0)},
    "negative offsets": {"a": entry([1], -4, 0)},
    "huge offsets": {"a": entry([1], 2**64 - 4, 2**64)},
    "of another length": {"a": entry([2], 0, 4)},
    "unknown numbers": {"a": entry([1], dtype="F1")},
    "no entry": {"a": 5},
    "no object": [entry([1])],
    "metadata that is none": {"__metadata__": 5, "a": entry([1])},
    "deep": DEEP.encode(),
    "deep metadata": b'{"__metadata__":' + DEEP.encode() + b"}",
    "doubled": SAME % b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',
    "doubled, otherwise": SAME % b'{"dtype":"F16","shape":[2],"data_offsets":[0,4]}',
    "a doubled shape": b'{"a":{"dtype":"F32","shape":[1],"shape":[4],"data_offsets":[0,4]}}',
    "NUL": b"\0" * 64,
    "no JSON": b"{",
}


@pytest.mark.parametrize("what", HEADERS)
def test_headers_of_safetensors(what, tmp_path):
    with_header(tmp_path, HEADERS[what], bytes(4))
    refused(lambda: Tensors(tmp_path), "model.safetensors: damaged or cut short .*; copy or")


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 10**15, 200 << 20, 40 << 20, 65])
def test_lengths_of_headers(size, tmp_path):
    with_header(tmp_path, {}, bytes(62), size=size)
    refused(lambda: Tensors(tmp_path), "model.safetensors: damaged or cut short")


def test_what_is_said_of_a_doubled_name(tmp_path):
    with_header(tmp_path, HEADERS["doubled"], bytes(4))
    refused(lambda: Tensors(tmp_path), r"'a' is there twice\)")


def test_a_sparse_file_of_a_claimed_size(copied, tmp_path):
    """The disk would give the claimed bytes, all of them zeros."""
    folder = copied("bert")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    name, size = "bert.embeddings.word_embeddings.weight", 1 << 36
    with_header(folder, {name: entry([size // 64, 16], 0, size)})
    with open(folder / "model.safetensors", "ab") as file:
        file.truncate(file.tell() + size)
    assert name in tensors
    with contextlib.suppress(MemoryError):  # what maps it needs address space, and no memory
        refused(lambda: from_hf.check(str(folder)), "bert")


@pytest.mark.parametrize("value", [HUGE, 2**31, 2**63, 10**30, -1, -HUGE, 1e15, str(HUGE), [HUGE]])
@pytest.mark.parametrize("model_type", ["bert", "gpt2", "t5"])
def test_sizes_in_a_config(model_type, value, tmp_path):
    config, _ = published.make(tmp_path / model_type, model_type)
    sizes = [k for k, v in config.items() if type(v) is int and "_id" not in k]
    assert len(sizes) > 5
    accepted = []
    for name in sizes:
        published.rewrite(tmp_path / model_type, config | {name: value})
        with little_memory(), contextlib.suppress(UserError):
            from_hf.check(str(tmp_path / model_type))
            accepted.append(name)
    # Distances and lengths that no tensor has are numbers like others.
    harmless = {"n_ctx", "relative_attention_max_distance", "n_positions", "pad_to_multiple_of"}
    assert set(accepted) <= harmless


def test_an_index_of_shards(copied):
    folder = copied("bert")
    for content in (
        DEEP,
        '{"weight_map":' + DEEP + "}",
        json.dumps({"weight_map": {"a": "x" * HUGE_NAME}}),
    ):
        (folder / "model.safetensors.index.json").write_text(content)
        refused(lambda: Tensors(folder), "index.json: ")


HUGE_NAME = 10**6


@pytest.mark.parametrize(
    ("file", "module", "limit"),
    [
        ("config.json", from_hf, "_MAX_CONFIG_BYTES"),
        ("model.safetensors.index.json", tensors_lib, "_MAX_INDEX_BYTES"),
        ("tokenizer.json", imported_tokenizer, "MAX_BYTES"),
        ("tokenizer_config.json", imported_tokenizer, "MAX_BYTES"),
    ],
)
def test_files_that_are_too_large(file, module, limit, copied):
    folder = copied("bert")
    with open(folder / file, "wb") as stream:
        stream.truncate(getattr(module, limit) + 1)
    refused(lambda: from_hf.check(str(folder)), f"{file}: [0-9,]+ bytes are more than such a file")


CLAIMS = [
    (["num_tokens"], HUGE, "has not the shards of its tokens"),
    (["num_tokens"], -1, "num_tokens: "),
    (["num_tokens"], 2**70, "num_tokens: "),
    (["num_tokens"], "5", "num_tokens: "),
    (["num_documents"], HUGE, "documents in"),
    (["num_documents"], 0, "documents in"),
    (["num_documents"], True, "num_documents: "),
    (["shards", 0, "num_blocks"], HUGE, "has no room for"),
    (["shards", 0, "num_blocks"], -1, "num_blocks: "),
    (["shards", 0, "num_blocks"], 1.5, "num_blocks: "),
    (["shards", 0, "bytes"], -5, "bytes: "),
    (["shards", 0], {}, "shards.0"),
    (["shards"], {}, "shards: "),
    (["starts"], None, "starts: "),
    (["origin", "sha256"], "../x", "sha256: "),
]


@pytest.mark.parametrize(("where", "value", "message"), CLAIMS)
def test_claims_of_a_split(where, value, message, copied):
    folder = copied("store")

    def change(manifest):
        part = manifest["splits"]["train"]
        for step in where[:-1]:
            part = part[step]
        part[where[-1]] = value

    with_manifest(folder, change)
    refused(
        lambda: store.Store.open(folder, "train"), rf"manifest.json: damaged \(.*{message}.*; copy"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block_size", HUGE),
        ("block_size", 0),
        ("block_size", "2048"),
        ("dtype", "O"),
        ("dtype", "float64"),
        ("dtype", "S1000000000"),
        ("dtype", [["a", "O"]]),
        ("tokenizer", {"sha256": "0" * 64, "vocab_size": HUGE}),
        ("tokenizer", {"sha256": "0" * 64, "vocab_size": -1}),
        ("tokenizer", None),
        ("inputs", {}),
        ("inputs", [5]),
        ("splits", []),
        ("splits", {"train": 5}),
        ("format", [1]),
    ],
)
def test_claims_of_a_store(name, value, copied):
    folder = copied("store")
    with_manifest(folder, lambda manifest: manifest.update({name: value}))
    for call in (lambda: store.Store.open(folder, "train"), lambda: verify.verify(folder)):
        refused(call, "manifest.json: (damaged|format)")


@pytest.mark.parametrize("content", [DEEP, '{"format":' + DEEP, "null", "5", '"manifest"', "\0"])
def test_manifests_that_are_none(content, copied):
    folder = copied("store")
    (folder / "manifest.json").write_text(content)
    refused(lambda: store.Store.open(folder, "train"), "manifest.json: damaged")


def test_a_large_manifest(copied):
    folder = copied("store")
    with open(folder / "manifest.json", "ab") as file:
        file.truncate(1 << 30)
    refused(
        lambda: store.Store.open(folder, "train"), "manifest.json: 1,073,741,824 bytes are more"
    )


@pytest.mark.parametrize("shape", [(HUGE,), (2**62, 4), (-1,), (), (3, 4)])
@pytest.mark.parametrize("which", ["starts", "origin"])
def test_arrays_of_another_shape(which, shape, copied):
    """A .npy header is short and may claim anything."""
    folder = copied("store")
    file = folder / f"train.{which}.npy"
    kind = np.lib.format.dtype_to_descr(np.load(file, mmap_mode="r").dtype)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": kind, "fortran_order": False, "shape": shape}
    )
    with_file(folder, which, header.getvalue().ljust(file.stat().st_size, b"\0"))
    opened = store.Store.open(folder, "train")
    use = {"starts": lambda: opened.documents_at([0], 8), "origin": lambda: opened.origin(0)}
    refused(use[which], f"{file.name}: (damaged|not one entry for each document)")


def test_starts_that_make_no_sense(copied):
    """A million documents at one place would be a million in every window."""
    folder = copied("store")
    starts = np.load(folder / "train.starts.npy")
    for changed in (starts * 0, starts[::-1], starts + 2**60):
        content = io.BytesIO()
        np.save(content, np.ascontiguousarray(changed))
        with_file(folder, "starts", content.getvalue())
        opened = store.Store.open(folder, "train")
        with little_memory(), contextlib.suppress(UserError):
            documents = opened.documents_at(np.arange(0, opened.num_tokens, 64), 64)
            assert documents.max() < opened.num_documents


def with_tokenizer_config(folder, **more):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def test_claims_of_a_tokenizer(copied):
    folder = copied("tokenizer")
    for number in (HUGE, -1, 0, "5", None, 1.5, True):
        with_tokenizer_config(folder, requested_vocab_size=number)
        refused(lambda: tokenizer_lib.load(folder), r"damaged \(.* is no number of ids")
    for content in (DEEP, '{"format": 1, "type": ' + DEEP, "[]", "5"):
        (folder / "tokenizer_config.json").write_text(content)
        for call in (tokenizer_lib.load, tokenizer_lib.file_names):
            refused(lambda call=call: call(folder), "tokenizer_config.json: damaged")
    (folder / "tokenizer_config.json").write_text(DEEP)
    refused(lambda: tokenizer_lib.load(folder), r"damaged \(nested too deep\); copy")


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer_config.json"])
def test_a_large_tokenizer(name, copied):
    folder = copied("tokenizer")
    with open(folder / name, "ab") as file:
        file.truncate(tokenizer_folder.MAX_BYTES + 1)
    refused(
        lambda: tokenizer_lib.load(folder), f"{name}: 67,108,865 bytes are more than such a file"
    )


def test_ids_beyond_reason(copied):
    """Numbers without a piece are counted one by one, so there must not be many."""
    folder = copied("bert")
    for number in (2**31, 2**32 - 1, 2**32, HUGE, -1):
        copy = shutil.copytree(folder, folder.with_name(f"bert{number}"))
        published_tokenizers.rewrite(
            copy, lambda content, n=number: content["model"]["vocab"].update(whale=n)
        )
        refused(lambda copy=copy: from_hf.check(str(copy)), "its tokenizer cannot be read")
    published_tokenizers.rewrite(
        folder, lambda content: content.update(padding=_padding(2**62), truncation=None)
    )
    with little_memory():
        assert from_hf.check(str(folder)).tokenizer.vocab_size == 600


def _padding(length):
    return {
        "strategy": {"Fixed": length},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "vocab.json"])
@pytest.mark.parametrize(
    "content", [DEEP, '{"a":' * 50_000, '{"model":' + "[" * 900 + "]" * 900 + "}"]
)
def test_nested_files_of_a_tokenizer(name, content, copied, tmp_path):
    folder = copied("bert")
    (folder / name).write_text(content)
    if name != "vocab.json":
        refused(lambda: from_hf.check(str(folder)), "its tokenizer cannot be read")
    else:  # which GPT-2's is built of, where there is no tokenizer.json
        (folder / "tokenizer.json").unlink()
        (folder / "merges.txt").write_text("")
        call = lambda: imported_tokenizer.read(str(folder), {}, {}, 640, "merges.txt")
        refused(call, "its tokenizer cannot be read")


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [HUGE]},
        {"shape": [HUGE, 16]},
        {"chunks": [10**9, 16]},
        {"chunks": [2**62, 2**62]},
        {"chunks": [0, 16]},
        {"shape": [-1, 16]},
        {"shape": "640"},
        {"dtype": "|S1000000000"},
        {"dtype": "|O"},
        {"dtype": [["a", "<f4"]]},
    ],
    ids=str,
)
def test_arrays_of_a_checkpoint(change, copied, tmp_path, capfd):
    """A chunk that is missing counts as zeros, so any size is there for free."""
    folder = copied("run")
    state = folder / "checkpoints" / "0" / "state"
    values = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{state}/"}).result()
    key = "params.embed.token/.zarray"
    said = json.loads(values.read(key).result().value)
    assert said["shape"] == [640, 16]
    values.write(key, json.dumps(said | change).encode()).result()
    (folder / "checkpoints" / "0.sha256").unlink(missing_ok=True)  # as of whoever made it so
    refused(lambda: trained.load(str(folder)), r"checkpoints/0 .*params.embed.token ")
    refused(
        lambda: published.export_folder(folder, tmp_path / "out"), r"checkpoints/0 .*embed.token "
    )
    assert capfd.readouterr().err == ""
    done = tool_run.run("doctor", f"--workdir={folder}")
    assert "embed.token" in done.out


def test_a_run_whose_config_claims_more(copied):
    """config.json is where shapes come from: the arrays have to be there before memory is."""
    folder = copied("run")
    config = json.loads((folder / "config.json").read_text())
    for name, value in (("vocab_size", 10**9), ("hidden_size", 2 * 10**6), ("mlp_size", 10**12)):
        changed = config["config"]["model"] | {name: value}
        (folder / "config.json").write_text(
            json.dumps(config | {"config": config["config"] | {"model": changed}})
        )
        refused(
            lambda: trained.load(str(folder)), "by config.json it has to be|not divisible|is not"
        )
    (folder / "config.json").write_text('{"format": 1, "config": ' + DEEP)
    refused(lambda: workdir.read(folder), r"is no run's config \(RecursionError: nested too deep\)")


@pytest.mark.parametrize("open_with", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [200, 900, 100_000])
def test_nested_lines(open_with, depth, tmp_path):
    file = tmp_path / "a.jsonl"
    close = {"[": "]", '{"a":': "}"}[open_with]
    file.write_text('{"text": ' + open_with * depth + "1" + close * depth + "}\n")
    refused(
        lambda: labelled.read(str(file), "train", {}, "none"), "a.jsonl:1: not JSON .nested too"
    )


def test_lines_of_many_brackets_are_not_deep(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": [[1]] * 500, "more": {str(i): {} for i in range(500)}}))
    assert len(labelled.read(str(file), "train", {}, "none").records[0]["text"]) == 500


def test_a_long_line(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_RECORD_BYTES", 1000)
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a"}\n' + json.dumps({"text": "b" * 1000}) + "\n")
    refused(lambda: labelled.read(str(file), "train", {}, "none"), "a.jsonl:2: longer than 0 MiB")
