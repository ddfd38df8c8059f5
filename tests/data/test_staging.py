import json
import os
import shutil
import uuid
from collections import namedtuple

import pytest

from lmjax import paths
from lmjax.data import cache, files, output, prepare, staging, store, verify
from lmjax.data import manifest as manifest_lib
from lmjax.errors import UserError


@pytest.fixture
def url(store_path):
    """The store of `store_path` in a bucket of memory."""
    url = f"memory://stores/{uuid.uuid4().hex}"
    paths.upload(store_path, url, paths.files_below(store_path))
    return url


def ensure(path, cache_dir, log=lambda line: None):
    return cache.ensure_store(
        path,
        tokenizer_path=None,
        vocab_size=1000,
        model_type="bpe",
        character_coverage=0.9995,
        sample_bytes=100_000,
        text_key="text",
        text_split="file",
        eval_fraction=0.1,
        cache_dir=str(cache_dir),
        num_workers=1,
        log=log,
    )


def test_a_store_in_a_bucket_is_fetched_once(url, store_path, tmp_path):
    lines = []
    folder = ensure(url, tmp_path, lines.append)
    assert folder.startswith(str(tmp_path))
    verify.verify(folder)
    assert paths.files_below(folder) == paths.files_below(store_path)
    assert any("fetching" in line for line in lines)
    for name in paths.find(url)[1:]:  # what is here needs no more than the manifest
        if name != store.MANIFEST:
            fs, path = paths.filesystem(f"{url}/{name}")
            fs.rm_file(path)
    assert ensure(url, tmp_path, lines.append) == folder
    assert "fetched before" in lines[-1]


def test_an_interrupted_copy_goes_on(url, tmp_path, monkeypatch):
    folder = ensure(url, tmp_path)
    os.remove(os.path.join(folder, store.MANIFEST))
    shard = os.path.join(folder, "train-00000.arrayrecord")
    os.remove(shard)
    fetched = []
    original = staging._fetch_file
    monkeypatch.setattr(
        staging, "_fetch_file", lambda u, f, e: (fetched.append(e["file"]), original(u, f, e))
    )
    assert ensure(url, tmp_path) == folder
    assert fetched == ["train-00000.arrayrecord"]
    verify.verify(folder)


def test_a_copy_that_has_lost_a_file_is_mended(url, tmp_path):
    folder = ensure(url, tmp_path)
    os.remove(os.path.join(folder, "train-00000.arrayrecord"))
    assert ensure(url, tmp_path) == folder
    verify.verify(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], r"train-00000.arrayrecord: has \d+ bytes, not \d+"),
        (lambda data: data[:-1] + b"?", "not the content its SHA-256 promises"),
    ],
)
def test_what_is_not_as_the_manifest_says_is_refused(url, tmp_path, damage, message):
    file = f"{url}/train-00000.arrayrecord"
    paths.write_bytes(file, damage(paths.read_bytes(file)))
    with pytest.raises(UserError, match=message):
        ensure(url, tmp_path)
    assert not list(tmp_path.rglob("train-00000.arrayrecord*"))


def test_too_little_disk_is_said_in_bytes(url, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 10))
    with pytest.raises(UserError, match=r"needs \d{4,} bytes more, the disk has 10 free"):
        ensure(url, tmp_path)


def test_a_manifest_cannot_write_elsewhere(url, tmp_path):
    file = f"{url}/{store.MANIFEST}"
    content = paths.read_bytes(file).replace(b'"train-000', b'"../train-000')
    sealed = manifest_lib.sealed(json.loads(content))
    paths.write_bytes(file, json.dumps(sealed).encode())
    with pytest.raises(UserError, match="names files elsewhere"):
        ensure(url, tmp_path)


def test_a_folder_without_its_manifest_is_unfinished(url, tmp_path):
    fs, path = paths.filesystem(f"{url}/{store.MANIFEST}")
    fs.rm_file(path)
    with pytest.raises(UserError, match="unfinished store"):
        ensure(url, tmp_path)


def test_an_output_for_a_bucket_goes_up_marker_last(
    corpus, tokenizer_path, store_path, tmp_path, monkeypatch
):
    url = f"memory://outputs/{uuid.uuid4().hex}"
    order = []
    upload = paths.upload
    monkeypatch.setattr(
        paths, "upload", lambda f, u, names: (order.extend(names), upload(f, u, names))
    )
    opened = {"marker": store.MANIFEST, "cache_dir": str(tmp_path), "log": lambda line: None}

    def build(folder):
        prepare.prepare(
            files.find_files(corpus), tokenizer_path, folder, eval_fraction=0.1, shard_tokens=8192
        )

    def interrupted():
        with output.folder(url, **opened) as folder:
            build(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert paths.find(url) == []
    with output.folder(url, **opened) as again:
        assert store.is_store(again)  # what was built before the interruption
    assert order[-1] == store.MANIFEST
    assert not os.path.exists(again)
    assert paths.find(url) == paths.files_below(store_path)
    with (
        pytest.raises(UserError, match="holds a finished one already"),
        output.folder(url, **opened),
    ):
        pass


def test_a_local_output_is_itself(tmp_path):
    with output.folder(str(tmp_path), marker="m", log=print) as folder:
        assert folder == str(tmp_path)
