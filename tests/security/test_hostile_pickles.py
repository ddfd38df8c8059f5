"""Nothing of what a user gives is ever unpickled: pickles in the place of every kind of file.

An audit hook hears of each class that an unpickler looks up, whoever runs it. Grain's worker
processes send lmjax's own objects (the store by its path, the objective) to each other by pickle:
no file is in between, and they are made by this very command.
"""

import contextlib
import hashlib
import io
import json
import pickle
import zipfile
from collections import Counter

import numpy as np
import published
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tool_run
from absl import flags
from hostile import Payload, pickled, refused, watched, with_file

from lmjax.data import (
    files,
    labelled,
    pipeline,
    plan,
    store,
    text,
    tokenizer,
    verify,
)
from lmjax.data.rows import StreamRows
from lmjax.errors import UserError
from lmjax.export import from_hf, to_hf
from lmjax.objectives.clm import CausalLM
from lmjax.train import metrics, trained, workdir


@pytest.fixture
def trap(tmp_path):
    """The folder that a payload would make; afterwards it is not there, and nobody has looked."""
    folder = tmp_path / "unpickled"
    with watched() as found:
        yield folder
    assert found == []
    assert not folder.exists()


def test_the_trap_works(tmp_path):
    with watched() as found:
        pickle.loads(pickled(tmp_path / "a"))
    assert found == [("posix", "mkdir")]
    assert (tmp_path / "a").is_dir()
    array = np.array([Payload(tmp_path / "b")], object)
    np.save(tmp_path / "b.npy", array, allow_pickle=True)
    with watched() as found:
        np.load(tmp_path / "b.npy", allow_pickle=True)
    assert ("posix", "mkdir") in found


def objects(folder):
    """A .npy with an array of objects."""
    out = io.BytesIO()
    np.save(out, np.array([Payload(folder)] * 12, object), allow_pickle=True)
    return out.getvalue()


def archive(folder):
    """A .npz of it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.npy", objects(folder))
    return out.getvalue()


KINDS = {"pickle": pickled, "objects": objects, "archive": archive}


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "ckpt", "pkl"])
def test_weights_that_are_pickles(suffix, copied, trap):
    folder = copied("bert")
    (folder / "model.safetensors").unlink()
    (folder / f"pytorch_model.{suffix}").write_bytes(pickled(trap))
    refused(lambda: from_hf.check(str(folder)), "is a pickle, .*; save the model as safetensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_pickle_in_the_place_of_a_published_file(kind, name, copied, trap):
    folder = copied("bert")
    (folder / name).write_bytes(KINDS[kind](trap))
    refused(lambda: from_hf.check(str(folder)), str(folder))


def test_pickles_beside_the_published_files(copied, tmp_path, trap):
    folder = copied("bert")
    others = ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth"]
    others += ["tokenizer.pkl", "vocab.pickle", "config.pkl", "model.npz"]
    for name in others:
        (folder / name).write_bytes(pickled(trap))
    code = f"import os\nos.mkdir({str(trap)!r})\n"
    for name in ("modeling_bert.py", "configuration_bert.py", "tokenization_bert.py"):
        (folder / name).write_text(code)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_bert.Model", "AutoConfig": "configuration_bert.C"}
    published.rewrite(folder, config | {"trust_remote_code": True})
    done = tool_run.run("import_hf", f"--input={folder}", f"--output={tmp_path}/out")
    assert (done.code, done.err) == (0, "")
    copied = {file.name for file in (tmp_path / "out").rglob("*")}
    assert not [name for name in copied if name.endswith(".py") or name in others]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer_config.json"])
def test_a_pickle_in_the_place_of_a_tokenizers_file(kind, name, copied, trap):
    folder, content = copied("tokenizer"), KINDS[kind](trap)
    (folder / name).write_bytes(content)
    refused(lambda: tokenizer.load(folder), "damaged|not the file its SHA-256 promises")
    if name == "tokenizer.model":  # and even where the config promises just that
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["sha256"] = hashlib.sha256(content).hexdigest()
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        refused(lambda: tokenizer.load(folder), r"damaged \(tokenizer.model: .*\); copy")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["starts", "origin"])
def test_a_pickle_in_a_store(kind, which, copied, trap):
    folder = copied("store")
    file = with_file(folder, which, KINDS[kind](trap)).name
    opened = store.Store.open(folder, "train")
    use = {"starts": lambda: opened.documents_at([0], 8), "origin": lambda: opened.origin(0)}
    message = f"{file}: (damaged|not one entry for each document) .*; copy the store again"
    refused(use[which], message)
    refused(lambda: verify.verify(folder), message)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_in_the_place_of_manifest_or_plan(kind, copied, tmp_path, trap):
    folder = copied("store")
    opened = store.Store.open(folder, "train")
    made = plan.ensure(opened, "pack", plan.sizes(CausalLM(seq_len=64)), str(tmp_path))
    for name in ("plan.json", "first.bin"):
        (folder / "plans").joinpath(made.path, name).write_bytes(KINDS[kind](trap))
        refused(lambda: plan.Plan(made.path), "not as it was written; delete")
    (folder / "manifest.json").write_bytes(KINDS[kind](trap))
    refused(lambda: store.Store.open(folder, "train"), "manifest.json: damaged")


def documents(file):
    found = files.find_files(str(file))
    return list(text.read_documents(found, text_key="text", text_split="file", counts=Counter()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".jsonl.gz", ".txt.zst", ".parquet"])
def test_a_pickle_in_the_place_of_text(kind, suffix, tmp_path, trap):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(KINDS[kind](trap))
    if suffix in (".txt", ".jsonl"):
        assert documents(file) == []  # counted as bad
    else:
        refused(lambda: documents(file), "cannot be read to its end|No magic|damaged")
    refused(lambda: labelled.read(str(file), "train", {}, "none"), str(file))


def test_a_column_that_asks_to_be_unpickled(tmp_path, trap):
    """pyarrow before 14.0.1 unpickled the type of such a column (CVE-2023-47248)."""
    field = pa.field(
        "text",
        pa.string(),
        metadata={
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": pickled(trap),
        },
    )
    table = pa.table([pa.array(["a text"])], schema=pa.schema([field]))
    pq.write_table(table, tmp_path / "a.parquet")
    assert [d.text for d in documents(tmp_path / "a.parquet")] == ["a text"]
    read = labelled.read(str(tmp_path / "a.parquet"), "train", {}, "none")
    assert read.records == ({"text": "a text"},)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_in_a_run(kind, copied, trap):
    folder, content = copied("run"), KINDS[kind](trap)
    (folder / "metrics.jsonl").write_bytes(content)
    with contextlib.suppress(ValueError):
        list(metrics.read(folder / "metrics.jsonl"))
    (folder / "unused.safetensors").write_bytes(content)
    refused(lambda: to_hf._kept(str(folder)), "unused.safetensors: damaged")
    (folder / "config.json").write_bytes(content)
    refused(lambda: workdir.read(folder), "is no run's config")


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_in_a_checkpoint(kind, copied, trap):
    """In every file of it, one after the other, and beside them."""
    folder, content = copied("run"), KINDS[kind](trap)
    step = folder / "checkpoints" / "0"
    for name in ("state/checkpoint", "state/model.pkl", "custom/metadata", "state/aggregate"):
        (step / name).parent.mkdir(exist_ok=True)
        (step / name).write_bytes(content)
    whole = [path for path in step.rglob("*") if path.is_file()]
    for path in whole:
        before = path.read_bytes()
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            trained.load(str(folder))
        path.write_bytes(before)


def test_workers_unpickle_what_lmjax_made(made):
    """With worker processes the main one unpickles batches: arrays, and nothing of a file."""
    flags.FLAGS(["test"], known_only=True)
    opened = store.Store.open(made / "store", "train")
    rows = StreamRows(opened, CausalLM(seq_len=32))
    make = pipeline.TrainBatches((rows,), 0, 4, np.arange(4))
    with watched() as found:
        batches = list(pipeline.iterate(make, 0, 2, 1))
    assert len(batches) == 2
    roots = {module.split(".")[0] for module, _ in found}
    assert roots <= {"numpy", "grain", "lmjax", "builtins", "collections", "multiprocessing"}
