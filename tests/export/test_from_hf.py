"""Folders that cannot be imported: one line says why, and nothing is left behind."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import published
import pytest
import safetensors.numpy

from lmjax import config as config_lib
from lmjax.data import output
from lmjax.errors import UserError
from lmjax.export import from_hf
from lmjax.hf.format import essence

TOOL = Path(__file__).parents[2] / "tools" / "import_hf.py"
WORD = "bert.embeddings.word_embeddings.weight"
QUERY = "bert.encoder.layer.0.attention.self.query.weight"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """model_type -> a folder that can be imported; it is not to be changed."""
    root, folders = tmp_path_factory.mktemp("published"), {}

    def get(model_type):
        if model_type not in folders:
            folders[model_type] = root / model_type
            published.make(folders[model_type], model_type)
        return folders[model_type]

    return get


@pytest.fixture
def copied(made, tmp_path):
    """model_type -> (a folder of the test's own, its config, its tensors)."""

    def get(model_type):
        folder = tmp_path / model_type
        shutil.copytree(made(model_type), folder)
        config = json.loads((folder / "config.json").read_bytes())
        return folder, config, safetensors.numpy.load_file(folder / SINGLE)

    return get


def refused(folder, message):
    """Whether an import ends in one line with `message` and leaves nothing; returns the line."""
    out = Path(folder).parent / "out"
    with pytest.raises(UserError, match=message) as caught:
        published.import_folder(folder, out)
    assert "\n" not in str(caught.value)
    assert not list(out.parent.glob("out*"))
    return str(caught.value)


def with_header(file, change):
    """Rewrites the header of a safetensors file."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def split(folder, tensors, names, doubled=()):
    """Turns a folder into one of two shards, the first with `names`, `doubled` in both."""
    shards = [
        {k: v for k, v in tensors.items() if k in names or k in doubled},
        {k: v for k, v in tensors.items() if k not in names},
    ]
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for file, shard in zip(files, shards, strict=True):
        safetensors.numpy.save_file(shard, folder / file)
    (folder / SINGLE).unlink()
    weight_map = {name: files[name not in names] for name in tensors}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


@pytest.mark.parametrize("model_type", published.MODELS)
def test_what_is_made_here_is_imported(model_type, made, tmp_path, capfd):
    read = published.import_folder(made(model_type), tmp_path / "out")
    assert essence(read.model) == essence(published.model_of(model_type))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "checkpoints",
        "config.json",
        "tokenizer",
    ]
    assert not (tmp_path / "out.partial").exists()
    assert capfd.readouterr() == ("", "")
