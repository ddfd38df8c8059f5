"""Uploads to a stand-in for the Hub: every byte arrives, the token goes nowhere else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import hub_stub
import huggingface_hub
import pytest

from lmjax.errors import UserError
from lmjax.export import hub as hub_lib

TOOL = Path(__file__).parents[2] / "tools" / "export_hf.py"
CANARY = "hf_CanaryCanaryCanary"
REPO = "me/mine"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A running stand-in that this process takes for the Hub, and a token."""
    with hub_stub.running() as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", CANARY)
        yield running


def contents(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def tool(workdir, home, url, *flags, token=CANARY):
    env = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"}
    env |= {"HF_ENDPOINT": url, "HF_HOME": str(home)} | ({"HF_TOKEN": token} if token else {})
    command = [sys.executable, str(TOOL), f"--workdir={workdir}", *flags]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_every_byte_arrives(hub, exported):
    assert hub_lib.push(str(exported), REPO, private=True) == f"{hub.url}/{REPO}"
    assert hub.files[REPO] == contents(exported)
    assert hub.private[REPO]


def test_an_older_export_is_replaced(hub, exported):
    stale = {"model-00001-of-00002.safetensors": b"x", "model.safetensors.index.json": b"{}"}
    hub.files[REPO] = {"notes.md": b"mine", "config.json": b"old", **stale}
    hub_lib.push(str(exported), REPO, private=False)
    assert hub.files[REPO] == {"notes.md": b"mine", **contents(exported)}


def test_the_token_is_in_its_header_alone(hub, run, tmp_path):
    out = tmp_path / "out"
    done = tool(run, tmp_path / "home", hub.url, f"--output={out}", f"--push_to_hub={REPO}")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"{hub.url}/{REPO}: uploaded; a new repository is private")
    assert hub.files[REPO] == contents(out)
    sent = [headers.pop("authorization", None) for _, _, headers, _ in hub.requests]
    assert set(sent) - {None} == {f"Bearer {CANARY}"}
    elsewhere = [done.stdout, done.stderr, hub.requests]
    elsewhere += [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    elsewhere += [p.read_bytes() for p in run.rglob("*") if p.is_file()]
    assert not any(CANARY in str(place) for place in elsewhere)


def test_without_a_token_the_folder_stays(hub, run, tmp_path):
    out = tmp_path / "out"
    flags = [f"--output={out}", f"--push_to_hub={REPO}"]
    done = tool(run, tmp_path / "home", hub.url, *flags, token=None)
    assert done.returncode == 1
    assert re.fullmatch("error: .* finds none; run `hf auth login` .*\n", done.stderr)
    assert f"`hf upload {REPO} {out}`" in done.stderr
    assert (out / "SHA256SUMS").exists()
    assert not hub.files


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not know the token .*; run `hf auth login` or renew HF_TOKEN"),
        (403, "may not write there .*; give one with write access"),
        (400, r"refuses the upload \(400: .*; mend what it names"),
        (500, "cannot be reached or used .*; check network and HF_ENDPOINT"),
    ],
)
def test_refusals(status, words, hub, exported):
    hub.status = status
    with pytest.raises(UserError, match=words) as caught:
        hub_lib.push(str(exported), REPO, private=True)
    assert "\n" not in str(caught.value)
    assert CANARY not in str(caught.value)


def test_no_network(hub, exported, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be reached or used .*; check network"):
        hub_lib.push(str(exported), REPO, private=True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give --output=FOLDER, --push_to_hub=OWNER/NAME, or both"),
        (["--license=Apache 2.0", "--output=x"], "write the Hub's identifier, such as apache-2.0"),
        ([f"--push_to_hub={REPO}", "--output=gs://bucket/x"], "give a local --output, or none"),
    ],
)
def test_flags_that_say_nothing(flags, words, tmp_path):
    done = tool(tmp_path, tmp_path / "home", "http://127.0.0.1:9", *flags)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert words in done.stderr


@pytest.mark.parametrize("name", ["mine", "a/b/c", "", "me/", "me/mi ne", "me/" + "x" * 100, "-/-"])
def test_names_of_no_repository(name):
    with pytest.raises(UserError, match=r"is no name of a repository; write OWNER/NAME"):
        hub_lib.check_name(name)
    hub_lib.check_name("me/my-model_1.0")


def test_no_token(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="needs a token of the Hugging Face Hub and finds none"):
        hub_lib.check_token()
