"""A run whose text, tokenizer, store and workdir are in a bucket on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from gcs_emulator import environment

import lmjax
from lmjax.train.metrics import TIMINGS

pytest.importorskip("gcp_storage_emulator", reason="needs pip install gcp-storage-emulator")
pytest.importorskip("gcsfs", reason="needs pip install 'lmjax[gcs]'")

ROOT = Path(__file__).parents[1]
CORPUS = Path(lmjax.__file__).parent / "corpora" / "corpus_small.jsonl"
CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict(dict(
        family="gpt2",
        model=dict(hidden_size=32, num_layers=2, num_heads=2, head_dim=16, mlp_size=128),
        objective=dict(name="clm"),
        tokenizer=dict(vocab_size=600),
        data=dict(path={path!r}, cache_dir={cache!r}, seq_len=32),
        optimizer=dict(learning_rate=1e-2),
        schedule=dict(warmup_steps=4),
        train=dict(num_steps=24, global_batch_size=8),
        checkpoint=dict(every=5),
        eval=dict(every=8, num_batches=2),
        log=dict(every=3),
    ))
"""


class Bucket:
    """The emulator and what is in its one bucket."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        script = str(Path(__file__).parent / "gcs_emulator.py")
        self.log = open(folder / "emulator.log", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, script, str(self.port), "bucket"], stdout=self.log, stderr=self.log
        )
        self.environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
        self.environment |= {"JAX_COMPILATION_CACHE_DIR": str(folder / "jit")}
        self.environment |= environment(self.port)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.get("/") is None:
            time.sleep(0.05)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
                return answer.read()
        except OSError:
            return None

    def read(self, name):
        return self.get(f"/storage/v1/b/bucket/o/{quote(name, safe='')}?alt=media")

    def names(self, prefix):
        listed = json.loads(self.get(f"/storage/v1/b/bucket/o?prefix={quote(prefix)}"))
        return [item["name"] for item in listed["items"]]

    def download(self, prefix, folder):
        for name in self.names(prefix):
            target = folder / name.removeprefix(prefix).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(name))

    def start(self, *command):
        return subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=ROOT,
        )

    def run(self, *command):
        process = self.start(*command)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    bucket = Bucket(tmp_path_factory.mktemp("bucket"))
    yield bucket
    bucket.close()


def succeed(result):
    code, out, err = result
    assert code == 0, err
    return out


def rows(data):
    found = [json.loads(line) for line in data.splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in found]


def parameters(checkpoint):
    return ocp.StandardCheckpointer().restore((checkpoint / "state").absolute())["params"]


@pytest.mark.slow
def test_killed_in_a_bucket_and_still_as_on_disk(bucket, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text("".join(CORPUS.read_text().splitlines(keepends=True)[:60]))
    data = {"local": f"{tmp_path}/data", "bucket": "gs://bucket/data"}
    config = {}
    for where, folder in data.items():
        succeed(
            bucket.run(
                "tools/train_tokenizer.py",
                f"--input={text}",
                f"--output={folder}/tokenizer",
                "--vocab_size=600",
            )
        )
        out = succeed(
            bucket.run(
                "tools/prepare_data.py",
                f"--input={text}",
                f"--tokenizer={folder}/tokenizer",
                f"--output={folder}/store",
                "--eval_fraction=0.1",
                f"--cache_dir={tmp_path}/building",
                "--verify",
            )
        )
        assert "verified" in out
        config[where] = tmp_path / f"{where}.py"
        cache = str(tmp_path / f"cache_{where}")
        config[where].write_text(CONFIG.format(path=f"{folder}/store", cache=cache))
    assert (
        bucket.read("data/store/manifest.json")
        == (tmp_path / "data" / "store" / "manifest.json").read_bytes()
    )

    whole, remote = tmp_path / "whole", "gs://bucket/runs/killed"
    succeed(bucket.run("-m", "lmjax.main", f"--config={config['local']}", f"--workdir={whole}"))
    for kill_after in (5, 15):
        process = bucket.start(
            "-m", "lmjax.main", f"--config={config['bucket']}", f"--workdir={remote}"
        )
        marker = f"runs/killed/checkpoints/{kill_after}/commit_success.txt"
        while bucket.read(marker) is None:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        logged = [row["step"] for row in rows(bucket.read("runs/killed/metrics.jsonl"))]
        assert max(logged) >= kill_after - 2  # rows are there before the checkpoint
        assert bucket.read("runs/killed/.lock") is not None
    out = succeed(bucket.run("-m", "lmjax.main", f"--workdir={remote}"))
    assert "going on from step" in out
    assert bucket.read("runs/killed/.lock") is None

    expected = rows((whole / "metrics.jsonl").read_bytes())
    assert rows(bucket.read("runs/killed/metrics.jsonl")) == expected
    names = bucket.names("runs/killed/checkpoints/")
    assert {name.split("/")[3] for name in names} == {"20", "24"}
    bucket.download("runs/killed/checkpoints/24", tmp_path / "brought" / "24")
    mine = parameters(tmp_path / "brought" / "24")
    theirs = parameters(whole / "checkpoints" / "24")
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert np.array_equal(a.view(np.uint32), b.view(np.uint32))

    out = succeed(bucket.run("-m", "lmjax.main", f"--workdir={remote}", "--mode=eval"))
    assert json.loads(out.splitlines()[-1]) == expected[-1]
    assert "going on from step" in bucket.read("runs/killed/lmjax.log").decode()
    assert len(bucket.names("runs/killed/tensorboard/")) >= 2


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_one_line(bucket, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(path=str(CORPUS), cache=str(tmp_path)))
    for arguments in (
        [f"--config={config}", "--workdir=gs://no-such-bucket/run"],
        [
            f"--config={config}",
            f"--workdir={tmp_path}/run",
            "--config.data.path=gs://no-such-bucket/store",
        ],
    ):
        code, out, err = bucket.run("-m", "lmjax.main", *arguments)
        assert code == 1
        assert "Traceback" not in out + err
        assert err.strip().splitlines()[-1].startswith("error: gs://no-such-bucket/")
        assert "not there" in err
        assert "create the bucket" in err
