"""The token store: whatever is damaged or swapped, its tokens are those that were written."""

import contextlib
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fuzzing import damaged, damaged_json, fuzz, outcome
from hypothesis import given
from hypothesis import strategies as st

from lmjax.data import cache, files, manifest, verify
from lmjax.data import plan as plan_lib
from lmjax.data.store import Store

LENGTH = 700
SIZES = plan_lib.Sizes(64, False, tuple(range(65)), 64, tuple(range(65)), 64)


@pytest.fixture
def copy(store_path, tmp_path):
    """A store to be damaged."""
    return shutil.copytree(store_path, tmp_path / "store")


def everything(path):
    """All that is read of a store, checked as at the start of a run."""
    folder, found = cache._existing(str(path), None), []
    for split in ("train", "eval"):
        store = Store.open(folder, split)
        starts = np.arange(0, store.num_tokens, LENGTH)
        found += [store.read(starts, LENGTH), store.documents_at(starts, LENGTH)]
        found += [store.bounds(0, store.num_documents), store.documents_of(starts)]
        found += [np.array([store.origin(i) for i in range(store.num_documents)], object)]
    return found


def same(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@contextlib.contextmanager
def content_of(contents):
    """Files with other content in the meantime, by path."""
    before = {path: path.read_bytes() for path in contents}
    try:
        for path, content in contents.items():
            path.write_bytes(content)
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


@pytest.mark.parametrize("seal", ["as it was", "none", "new"])
def test_fields_of_the_manifest(copy, seal):
    file, expected = copy / "manifest.json", everything(copy)
    content = json.loads(file.read_text())
    if seal != "as it was":
        del content["checksum"]

    @fuzz
    @given(changed=damaged_json(content))
    def property(changed):
        if seal == "new":
            changed = manifest.sealed(changed)
        file.write_text(json.dumps(changed))
        found = outcome(lambda: everything(copy))
        assert found is None or seal != "as it was" or same(found, expected)
        outcome(lambda: verify.verify(copy))

    property()


def test_bytes_of_the_manifest(copy):
    file, expected = copy / "manifest.json", everything(copy)

    @fuzz
    @given(changed=damaged(file.read_bytes()))
    def property(changed):
        file.write_bytes(changed)
        found = outcome(lambda: everything(copy))
        assert found is None or same(found, expected)

    property()


@pytest.mark.parametrize("believed", [False, True], ids=["by mistake", "as if it had to be so"])
@pytest.mark.parametrize("name", ["starts", "origin"])
def test_index_files(copy, name, believed):
    file, described, expected = copy / f"train.{name}.npy", copy / "manifest.json", everything(copy)
    content = json.loads(described.read_text())
    entry = content["splits"]["train"][name]

    @fuzz
    @given(changed=damaged(file.read_bytes()))
    def property(changed):
        file.write_bytes(changed)
        if believed:
            entry.update(bytes=len(changed), sha256=files.sha256(file))
            described.write_text(json.dumps(manifest.sealed(content)))
        found = outcome(lambda: everything(copy))
        assert found is None or believed or same(found, expected)
        outcome(lambda: verify.verify(copy))

    property()


def test_damaged_shards(copy):
    shards, expected = sorted(copy.glob("*.arrayrecord")), everything(copy)
    originals = {path: path.read_bytes() for path in shards}

    @fuzz
    @given(data=st.data())
    def property(data):
        path = data.draw(st.sampled_from(shards))
        original = originals[path]
        at = data.draw(st.integers(0, len(original) - 1) | st.integers(0, 9000))
        size = data.draw(st.sampled_from([1, 8, 100, 5000]))
        noise = data.draw(st.binary(min_size=1, max_size=8)) * size
        changed = original[:at] + noise[:size] + original[at + size :]
        with content_of({path: changed[: len(original)]}):
            found = outcome(lambda: everything(copy))
            assert found is None or same(found, expected)

    property()


def test_swapped_files(copy):
    """Files of one size in each other's place: shards, and those of the two splits."""
    shards, expected = sorted(copy.glob("train-*.arrayrecord")), everything(copy)
    assert len({path.stat().st_size for path in shards}) == 1
    others = sorted(copy.glob("eval-*.arrayrecord"))
    for one, other in [*itertools.combinations(shards[:4], 2), (shards[0], others[0])]:
        with content_of({one: other.read_bytes(), other: one.read_bytes()}):
            assert outcome(lambda: everything(copy)) is None
    assert same(everything(copy), expected)


@pytest.mark.parametrize("name", ["plan.json", "start.bin", "length.bin", "first.bin"])
def test_damaged_plans(copy, name, tmp_path):
    store = Store.open(copy, "train")
    plan = plan_lib.ensure(store, "pack", SIZES, str(tmp_path))
    rows, file = np.arange(plan.num_rows), Path(plan.path, name)
    expected = plan.parts(rows)

    @fuzz
    @given(changed=damaged(file.read_bytes()))
    def property(changed):
        file.write_bytes(changed)
        found = outcome(lambda: plan_lib.Plan(plan.path).parts(rows))
        assert found is None or same(found, expected)

    property()
