"""Bits flipped in the files of a token store: told, or without any effect; never trained on."""

import random
import shutil
from collections import Counter

import numpy as np
import pytest
import small_run

from lmjax.data import cache, prepare, tokenizer_training
from lmjax.data.store import Store
from lmjax.errors import UserError

LENGTH = 33
NUM_FLIPS = {"*.arrayrecord": 100, "manifest.json": 40, "*.starts.npy": 30, "*.origin.npy": 10}
NUM_FLIPS["tokenizer/*"] = 20


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store of several shards."""
    folder = tmp_path_factory.mktemp("store_damage")
    text = folder / "text.jsonl"
    text.write_text("".join(small_run.CORPUS.read_text().splitlines(keepends=True)[:60]))
    size = {"vocab_size": 400, "model_type": "bpe", "sample_bytes": 100_000}
    tokenizer_training.train([str(text)], folder / "tokenizer", **size)
    size = {"eval_fraction": 0.1, "num_workers": 1, "shard_tokens": 2 * 2048}
    prepare.prepare([str(text)], folder / "tokenizer", folder / "store", **size)
    return folder / "store"


def trained_on(path):
    """All that a run takes from a store, opened as a run opens it: tokens, documents, tokenizer."""
    text = {"text_key": "text", "text_split": "file", "eval_fraction": 0.1}
    settings = {"tokenizer_path": None, "cache_dir": "", "num_workers": 1, "log": lambda line: None}
    folder, found = cache.ensure_store(str(path), **text, **settings), []
    for split in ("train", "eval"):
        opened = Store.open(folder, split)
        starts = np.arange(0, opened.num_tokens, LENGTH)
        found += [opened.read(starts, LENGTH), opened.documents_at(starts, LENGTH)]
    return found


def outcome(path):
    """(what is trained on, None), or (None, the line that a run ends with)."""
    try:
        return trained_on(path), None
    except UserError as error:
        return None, str(error)


def places(files, number, rng):
    """Random bits; every second one where there is anything but the padding of a shard."""
    for count in range(number):
        file = rng.choice(files)
        content = np.frombuffer(file.read_bytes(), np.uint8)
        taken = np.flatnonzero(content) if count % 2 else np.arange(len(content))
        yield file, int(rng.choice(taken)), 1 << rng.randrange(8)


def test_200_flipped_bits_are_told_or_without_effect(original, tmp_path):
    copy = shutil.copytree(original, tmp_path / "store")
    expected, rng = trained_on(copy), random.Random(0)
    came = Counter()  # without effect
    for pattern, number in NUM_FLIPS.items():
        for file, place, bit in places(sorted(copy.glob(pattern)), number, rng):
            whole = file.read_bytes()
            damaged = bytearray(whole)
            damaged[place] ^= bit
            file.write_bytes(damaged)
            found, said = outcome(copy)
            file.write_bytes(whole)
            if said is None:
                same = [np.array_equal(a, b) for a, b in zip(found, expected, strict=True)]
                assert all(same), (file, place, bit)
                came[pattern] += 1
            else:
                assert "\n" not in said
                assert str(copy) in said
    assert came["*.starts.npy"] == 0
    assert came["*.arrayrecord"] <= 60  # half of the bits are anywhere in files of padding
    assert came["manifest.json"] + came["tokenizer/*"] <= 20
    assert came["*.origin.npy"] == 10  # which training does not read
