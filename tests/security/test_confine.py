"""Names and links in what others made never lead out of its folder, to be read or written."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import published
import pytest
import safetensors.numpy
import tool_run
from hostile import refused, with_manifest

from lmjax import confine, paths
from lmjax.config import Config
from lmjax.data import plan, store
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.rows import PlannedRows
from lmjax.errors import UserError
from lmjax.fields import from_dict
from lmjax.objectives.clm import CausalLM
from lmjax.train import workdir
from lmjax.train.workdir import RunConfig, Workdir

OUTSIDE = [
    "../x",
    "/etc/x",
    "a/../../x",
    "..",
    ".",
    "",
    "a//b",
    "a/./b",
    "a\0",
    "a\nb",
    "\\x",
    "\ud800",
]


@pytest.fixture
def secret(tmp_path_factory):
    """A file that is none of what others made."""
    file = tmp_path_factory.mktemp("mine") / "secret"
    file.write_text("a secret of this machine")
    return file


@pytest.mark.parametrize("name", OUTSIDE)
def test_names(name):
    assert not confine.is_plain(name)
    refused(lambda: confine.check_below(f"a/{name}", "there"), "there: names a file elsewhere")


def test_names_that_are_plain():
    for name in ("model-00001-of-00002.safetensors", ".zarray", "東京", "a b", "x" * 255):
        assert confine.is_plain(name)
        confine.check_below(f"d/{name}", "there")
    assert not confine.is_plain("x" * 256)
    assert not confine.is_plain(5)


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("which", ["shards", "starts", "origin"])
def test_a_manifest(which, name, copied):
    folder = copied("store")

    def change(manifest):
        entry = manifest["splits"]["train"][which]
        (entry[0] if which == "shards" else entry)["file"] = name

    with_manifest(folder, change)
    for read in (store.read_manifest, lambda path: store.Store.open(path, "train")):
        refused(lambda read=read: read(folder), "manifest.json: names files elsewhere .*do not use")


def test_a_bucket(tmp_path, monkeypatch):
    """An object's name may hold anything; what is fetched stays in its folder."""

    class Bucket:
        def find(self, root):
            return [f"{root}/{name}" for name in ("config.json", "../../outside")]

        def get_file(self, source, target):
            with open(target, "w") as file:
                file.write(source)

    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.setattr(paths, "filesystem", lambda url: (Bucket(), "bucket/run"))
    names = paths.find("s3://bucket/run")
    refused(lambda: paths.download("s3://bucket/run", folder, names), "names a file elsewhere")
    assert paths.files_below(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"]
)
def test_links_in_a_published_folder(name, secret, copied, tmp_path):
    """Else a file of this machine would be copied into the workdir, and from there uploaded."""
    folder = copied("bert")
    (folder / "tokenizer.json").write_text("{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    refused(
        lambda: published.import_folder(folder, tmp_path / "out"),
        f"{name}: is a link to .*secret, outside of that folder; put the file itself there",
    )
    (folder / name).unlink()
    (folder / name).symlink_to(folder / name)
    with pytest.raises(UserError):
        published.import_folder(folder, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_link_to_a_shard_elsewhere(copied, tmp_path):
    folder = copied("bert")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere")
    (folder / "one.safetensors").symlink_to(tmp_path / "elsewhere")
    names = safetensors.numpy.load_file(tmp_path / "elsewhere")
    index = {"weight_map": dict.fromkeys(names, "one.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(lambda: published.import_folder(folder, tmp_path / "out"), "one.safetensors: is a link")


def test_the_cache_of_the_hub_has_links(made, tmp_path):
    """models--OWNER--NAME/snapshots/REVISION/FILE -> ../../blobs/HASH."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    shutil.copytree(made / "bert", blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(os.path.join("..", "..", "blobs", file.name))
    published.import_folder(snapshot, tmp_path / "out")
    (tmp_path / "link").symlink_to(snapshot)  # where the folder is, is the user's choice
    published.import_folder(tmp_path / "link", tmp_path / "again")


@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "lmjax.log", ".config.json.tmp", ".lock", "checkpoints", "tokenizer/x"],
)
def test_links_in_a_workdir(name, tmp_path):
    target = tmp_path / "mine"
    target.mkdir() if name == "checkpoints" else target.write_text("mine")
    folder = tmp_path / "run"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / name).symlink_to(target)
    refused(lambda: Workdir(folder), f"{name}: is a link to .*mine, and .*; put the files")
    assert target.is_dir() or target.read_text() == "mine"


def test_a_linked_workdir_is_the_users_own(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "newest").symlink_to(tmp_path / "disk" / "checkpoints")
    folder = Workdir(tmp_path / "run")
    workdir.write(folder.path, RunConfig(Config(), None))
    folder.close()
    assert (tmp_path / "disk" / "config.json").is_file()


def test_only_a_tokenizers_own_files_are_copied(secret, copied, tmp_path):
    source = copied("tokenizer")
    (source / "more").symlink_to(secret)
    (source / "folder").mkdir()
    folder = Workdir(tmp_path / "run")
    folder.keep_tokenizer(source)
    folder.close()
    assert sorted(os.listdir(folder.tokenizer)) == ["tokenizer.model", "tokenizer_config.json"]
    assert tokenizer_lib.load(folder.tokenizer).sha256 == tokenizer_lib.load(source).sha256


def test_files_of_a_published_tokenizer(tmp_path):
    config = {"format": 1, "type": "tokenizer.json", "special": {}, "files": {"../../x": "0"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for read in (tokenizer_lib.load, tokenizer_lib.file_names):
        refused(lambda read=read: read(tmp_path), r"'\.\./\.\./x' is no file of a tokenizer")


def test_links_to_plans(copied, tmp_path):
    """Plans are written into the store's folder."""
    folder = copied("store")
    (tmp_path / "mine").mkdir()
    (folder / "plans").symlink_to(tmp_path / "mine")
    opened, sizes = store.Store.open(folder, "train"), plan.sizes(CausalLM(seq_len=64))
    ensure = lambda: plan.ensure(opened, "pack", sizes, str(tmp_path / "cache"))
    refused(ensure, "plans: is a link to .*mine")
    (folder / "plans").unlink()
    made = plan.ensure(opened, "pack", sizes, str(tmp_path / "cache"))
    start = os.path.join(made.path, "start.bin")
    os.replace(start, tmp_path / "mine" / "start.bin")
    os.symlink(tmp_path / "mine" / "start.bin", start)
    refused(ensure, "start.bin: is a link to .*mine")


def test_a_plan_of_another_store(copied, tmp_path):
    folder = copied("store")
    opened, objective = store.Store.open(folder, "train"), CausalLM(seq_len=64)
    made = plan.ensure(opened, "pack", plan.sizes(objective), str(tmp_path))
    meta = Path(made.path, "plan.json")
    index = np.arange(3)

    def damaged(column, value, message):
        """Forges a number of a column, and what is said of the column."""
        file, said = os.path.join(made.path, f"{column}.bin"), json.loads(meta.read_text())
        numbers = np.fromfile(file, plan._DTYPES[column])
        forged = numbers.copy()
        forged[1] = value
        for content in (forged, numbers):
            content.tofile(file)
            said["files"][column] = store.file_entry(made.path, f"{column}.bin")
            meta.write_text(json.dumps(said))
            rows = PlannedRows(opened, objective, plan.Plan(made.path))
            if content is forged:
                refused(lambda rows=rows: rows.make(0, index * 0, index), message)
        rows.make(0, index * 0, index)

    damaged("first", 2**60, "first.bin: not as it was written; delete")
    damaged("start", 2**60, "its rows are not those of this store; delete")
    damaged("length", 2**31, "its rows are not those of this store; delete")
    for content in ("[" * 100_000, "{}", '{"num_rows": 1e999, "num_parts": 1, "fill": 1}'):
        meta.write_text(content)
        refused(lambda: plan.Plan(made.path), "plan.json: not as it was written; delete")


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\\b", "", "a\nb"])
def test_names_of_sources(name):
    with pytest.raises(UserError, match=r"data\.sources has a text called"):
        from_dict({"data": {"sources": [[name, "a"], ["other", "b"]]}})


def test_the_line_of_a_tool(copied, tmp_path):
    folder = copied("store")
    with_manifest(folder, lambda m: m["splits"]["train"]["starts"].update(file="/etc/passwd"))
    done = tool_run.run("doctor", f"--data={folder}")
    assert done.code == 1
    assert "names files elsewhere ('/etc/passwd')" in done.out
