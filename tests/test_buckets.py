"""A run whose tokenizer, store and workdir are in a bucket: GCS and S3, emulated on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
import small_run
from small_run import CORPUS

from lmjax import paths, runner
from lmjax.errors import UserError

ROOT = Path(__file__).parents[1]


def gcs(port):
    """(command of the emulator, environment of the clients, options of fsspec's client)."""
    host = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(Path(__file__).parent / "gcs_emulator.py"), str(port), "bucket"]
    clients = {
        "STORAGE_EMULATOR_HOST": host,  # gcsfs and google-cloud-storage
        "TENSORSTORE_GCS_HTTP_URL": host,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",  # TensorStore
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # would ask Google what the bucket is
    }
    return command, clients, {"endpoint_url": host, "token": "anon"}


def s3(port):
    """As `gcs`."""
    host = f"http://127.0.0.1:{port}"
    clients = {
        "AWS_ENDPOINT_URL": host,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    options = {"endpoint_url": host, "key": "any", "secret": "any"}
    return [sys.executable, "-m", "moto.server", "-p", str(port)], clients, options


class Bucket:
    """An emulator and its one bucket."""

    def __init__(self, scheme, emulator, folder):
        self.url = f"{scheme}://bucket"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command, clients, options = emulator(port)
        self.environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT), **clients}
        self.environment |= {"HOME": str(folder)}  # the cache folder
        self.environment |= {"JAX_COMPILATION_CACHE_DIR": str(folder / "jit")}
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment
        )
        deadline = time.monotonic() + 30
        while not _answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.files = fsspec.filesystem(scheme, use_listings_cache=False, **options)
        if scheme == "s3":
            self.files.mkdir("bucket")

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


def _answers(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", params=["gs", "s3"])
def bucket(request, tmp_path_factory):
    if request.param == "gs":
        pytest.importorskip("gcp_storage_emulator", reason="needs pip install gcp-storage-emulator")
        os.environ.update(GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT="false")
        pytest.importorskip("gcsfs", reason="needs pip install 'lmjax[gcs]'")
    else:
        pytest.importorskip("moto", reason="needs pip install 'moto[server]'")
        pytest.importorskip("s3fs", reason="needs pip install 'lmjax[s3]'")
    emulator = {"gs": gcs, "s3": s3}[request.param]
    bucket = Bucket(request.param, emulator, tmp_path_factory.mktemp("bucket"))
    yield bucket
    bucket.close()


def succeed(result):
    code, out, err = result
    assert code == 0, err
    return out


def rows(data):
    return small_run.comparable(json.loads(line) for line in data.splitlines())


def test_a_run_that_only_the_bucket_remembers(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text, config = tmp_path / "text.jsonl", tmp_path / "config.py"
    text.write_text("".join(CORPUS.read_text().splitlines(keepends=True)[:30]))
    config.write_text(small_run.config(text, tmp_path / "cache"))
    url, config_url = f"memory://{tmp_path.name}/run", f"memory://{tmp_path.name}/config.py"
    with pytest.raises(UserError, match=r"config\.py is not there"):
        runner.train(runner.Request(config_url, url))
    paths.write_bytes(config_url, config.read_bytes())
    assert runner.train(runner.Request(config_url, url, {"train.num_steps": 6})) == 0
    found = paths.find(url)
    assert {"config.json", "lmjax.log", "metrics.jsonl", "tokenizer/tokenizer.model"} < set(found)
    assert {"checkpoints/5/commit_success.txt", "checkpoints/6/commit_success.txt"} < set(found)
    assert runner.evaluate(runner.Request(None, url)) == 0
    assert not [p for p in (tmp_path / ".cache" / "lmjax").rglob("*") if p.is_file()]
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row == rows(paths.read_bytes(f"{url}/metrics.jsonl"))[-1]


@pytest.mark.slow
def test_killed_in_a_bucket_and_still_as_on_disk(bucket, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text("".join(CORPUS.read_text().splitlines(keepends=True)[:60]))
    config = {}
    for where, folder in {"local": f"{tmp_path}/data", "remote": f"{bucket.url}/data"}.items():
        flags = [f"--input={text}", f"--output={folder}/tokenizer", "--vocab_size=600"]
        succeed(bucket.run("tools/train_tokenizer.py", *flags))
        flags = [f"--input={text}", f"--tokenizer={folder}/tokenizer", f"--output={folder}/store"]
        flags += ["--eval_fraction=0.1", f"--cache_dir={tmp_path}/building", "--verify"]
        assert "verified" in succeed(bucket.run("tools/prepare_data.py", *flags))
        config[where] = tmp_path / f"{where}.py"
        cache = str(tmp_path / f"cache_{where}")
        config[where].write_text(small_run.config(f"{folder}/store", cache))
    manifest = (tmp_path / "data" / "store" / "manifest.json").read_bytes()
    assert bucket.files.cat("bucket/data/store/manifest.json") == manifest

    whole, url, run = tmp_path / "whole", f"{bucket.url}/runs/killed", "bucket/runs/killed"
    succeed(bucket.run("-m", "lmjax.main", f"--config={config['local']}", f"--workdir={whole}"))
    command = ["-m", "lmjax.main", f"--config={config['remote']}", f"--workdir={url}"]
    for kill_after in (5, 15):
        process = bucket.start(*command)
        while not bucket.files.exists(f"{run}/checkpoints/{kill_after}/commit_success.txt"):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.kill()
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        logged = [row["step"] for row in rows(bucket.files.cat(f"{run}/metrics.jsonl"))]
        assert max(logged) >= kill_after - 2  # rows are there before the checkpoint
        assert bucket.files.exists(f"{run}/.lock")
        following = f"{run}/checkpoints/{kill_after + 5}"
        if not bucket.files.exists(f"{following}/commit_success.txt"):
            bucket.files.pipe(f"{following}/state/d/torn", b"what a killed save leaves")
    out = succeed(bucket.run(*command, "--config.data.num_workers=2"))
    assert "going on from step" in out
    assert not bucket.files.exists(f"{run}/.lock")

    expected = rows((whole / "metrics.jsonl").read_bytes())
    assert rows(bucket.files.cat(f"{run}/metrics.jsonl")) == expected
    steps = {Path(p).name for p in bucket.files.ls(f"{run}/checkpoints", detail=False)}
    assert steps == {"20", "20.sha256", "24", "24.sha256"}
    bucket.files.get(f"{run}/checkpoints/24/", f"{tmp_path}/brought/24/", recursive=True)
    brought = small_run.parameters(tmp_path / "brought" / "24")
    small_run.assert_same_bits(brought, small_run.parameters(whole / "checkpoints" / "24"))

    out = succeed(bucket.run("-m", "lmjax.main", f"--workdir={url}", "--mode=eval"))
    assert json.loads(out.splitlines()[-1]) == expected[-1]
    bucket.files.pipe("bucket/in.jsonl", b'{"token_ids": [5, 6, 7]}')
    flags = [f"--workdir={url}", f"--input={bucket.url}/in.jsonl", "--step=20"]
    succeed(bucket.run("tools/score.py", *flags, f"--output={bucket.url}/scored.jsonl"))
    (line,) = rows(bucket.files.cat("bucket/scored.jsonl"))
    assert (line["token_ids"], line["num_tokens"]) == ([5, 6, 7], 2)

    assert b"going on from step" in bucket.files.cat(f"{run}/lmjax.log")
    assert len(bucket.files.ls(f"{run}/tensorboard")) >= 2


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_one_line(bucket, tmp_path):
    nowhere = bucket.url.replace("bucket", "no-such-bucket")
    config = tmp_path / "config.py"
    config.write_text(small_run.config(CORPUS, tmp_path))
    for arguments in (
        [f"--workdir={nowhere}/run"],
        [f"--workdir={tmp_path}/run", f"--config.data.path={nowhere}/store"],
    ):
        code, out, err = bucket.run("-m", "lmjax.main", f"--config={config}", *arguments)
        assert code == 1
        assert "Traceback" not in out + err
        assert err.strip().splitlines()[-1].startswith(f"error: {nowhere}/")
        assert "not there" in err
        assert "create the bucket" in err


class _Refusing(BaseHTTPRequestHandler):
    """What Google answers to somebody without credentials."""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        why = "Anonymous caller does not have storage.objects.create access to the object."
        body = json.dumps({"error": {"code": 401, "message": why}}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *args):
        pass


@pytest.mark.slow
def test_no_credentials_is_one_line(bucket, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(small_run.config(CORPUS, tmp_path))
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    before = dict(bucket.environment)
    bucket.environment |= gcs(server.server_port)[1]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        bucket.environment[name] = ""
    code, out, err = bucket.run(
        "-m", "lmjax.main", f"--config={config}", f"--workdir={bucket.url}/closed"
    )
    bucket.environment = before
    server.shutdown()
    server.server_close()
    assert code == 1
    assert "Traceback" not in out + err
    last = err.strip().splitlines()[-1]
    assert last.startswith(f"error: {bucket.url}/closed")
    assert "no credentials" in last
    assert "gcloud auth" in last or "aws configure" in last
