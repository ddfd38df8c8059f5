"""An export holds one tensor at a time, whatever the size of the model."""

import subprocess
import sys

import numpy as np
import pytest

from lmjax import families
from lmjax import fields as fields_lib
from lmjax.data.tokenizer import IdsTokenizer
from lmjax.families import weights
from lmjax.train import checkpoint, setup, workdir
from lmjax.train.workdir import RunConfig

EXPORT = """
import sys
from lmjax.export import to_hf
def peak():  # getrusage would count what the parent had before `exec`
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) * 1024
before = peak()
to_hf.export(sys.argv[1], sys.argv[2], max_shard_bytes=3 * 10**8, progress=lambda *_: None)
assert not {"torch", "transformers"} & set(sys.modules)
print(peak() - before)
"""


@pytest.mark.slow
def test_an_export_is_streamed(tmp_path):
    raw = {
        "family": "llama",
        "model": {
            "preset": "llama3_1b",
            "hidden_size": 1024,
            "mlp_size": 4096,
            "num_heads": 8,
            "vocab_size": 32_000,
        },
    }
    config = setup.resolve(fields_lib.from_dict(families.resolve(raw)))
    run, out = tmp_path / "run", tmp_path / "out"
    for folder in (run / "tokenizer", tmp_path / "scratch", out):
        folder.mkdir(parents=True)
    leaves = {
        path: np.memmap(tmp_path / "scratch" / str(i), np.float32, "w+", shape=shape)
        for i, (path, shape) in enumerate(weights.shapes(config.model).items())
    }
    size = sum(leaf.nbytes for leaf in leaves.values())
    assert size > 10**9
    checkpoint.save_weights(str(run / "checkpoints"), weights.nested(leaves), {})
    IdsTokenizer(32_000, {}).save(run / "tokenizer")
    workdir.write(run, RunConfig(config, None))
    command = [sys.executable, "-c", EXPORT, str(run), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    largest = 4 * 32_000 * 1024
    assert int(done.stdout) < largest + 3 * 10**8 < size / 2
    assert len(list(out.glob("*.safetensors"))) >= 4
