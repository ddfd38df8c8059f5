"""Logits that transformers computed of small models, which `make_references.py` stored."""

import jax
import numpy as np
import ours
import pytest
import references

from lmjax import families
from lmjax.export import from_hf
from lmjax.families import weights
from lmjax.hf.tensors import Tensors
from lmjax.nn.model import Model

NAMES = sorted(file.stem for file in references.FOLDER.glob("*.npz"))
THROUGH_FILES = ("bert", "llama", "bart_own_head")


def assert_same_logits(got, reference):
    real = reference.batch["segment_ids"] > 0
    assert np.abs(reference.logits[real]).max() > 1
    assert np.abs(got - reference.logits)[real].max() <= 1e-4


def assert_same_tensors(got, reference):
    assert got.keys() == reference.shapes.keys()
    for name, shape in reference.shapes.items():
        assert got[name].tobytes() == references.tensor(name, shape).tobytes(), name


def test_there_is_one_of_each_model_type():
    found = {references.load(name).config["model_type"] for name in NAMES}
    assert found == families.FORMATS.keys()


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(THROUGH_FILES)))
def test_logits_and_the_way_back(tmp_path, name):
    reference = references.load(name)
    reference.write_model(tmp_path / "theirs")
    published = from_hf.check(str(tmp_path / "theirs"))
    params = ours.parameters(published)
    model = Model(published.model, published.model.vocab_size)
    got = jax.jit(model.apply)({"params": params}, reference.batch)
    assert_same_logits(np.asarray(got), reference)
    leaves = weights.flat(params)
    back = {entry.name: weights.to_published(entry, leaves) for entry in published.entries}
    assert_same_tensors(back, reference)


@pytest.mark.parametrize("name", THROUGH_FILES)
def test_the_same_through_a_workdir(tmp_path, name):
    reference = references.load(name)
    reference.write_model(tmp_path / "theirs")
    workdir = ours.imported(tmp_path / "theirs", tmp_path / "workdir")
    assert_same_logits(ours.logits(workdir, reference.batch), reference)
    tensors = Tensors(ours.exported(workdir, tmp_path / "again"))
    assert_same_tensors({name: tensors(name) for name in tensors.shapes}, reference)
