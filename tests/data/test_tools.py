"""The command lines end to end: what they print, and their one-line errors."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(tool, *args):
    command = [sys.executable, ROOT / "tools" / f"{tool}.py", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_from_text_to_a_verified_store(tmp_path):
    trained = run(
        "train_tokenizer",
        "--input=bundled:corpus_small",
        f"--output={tmp_path}/tok",
        "--vocab_size=1000",
        "--model_type=bpe",
        "--sample_bytes=200000",
    )
    assert (trained.returncode, trained.stderr) == (0, "")
    assert "1000 ids" in trained.stdout
    prepared = run(
        "prepare_data",
        "--input=bundled:corpus_small",
        f"--tokenizer={tmp_path}/tok",
        f"--output={tmp_path}/store",
        "--verify",
    )
    assert (prepared.returncode, prepared.stderr) == (0, "")
    assert "verified" in prepared.stdout
    assert "bytes per token" in prepared.stdout
    assert f"--config.data.path={tmp_path}/store" in prepared.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--input=nope.txt", "--tokenizer=x", "--output=y"], "nope.txt: no such file or folder"),
        (["--input=x", "--tokeniser=x"], "Did you mean: tokenizer"),
        (["--input=x"], "missing --tokenizer, --output"),
        (["--input=x", "--tokenizer=x", "--output=y", "stray"], "unexpected argument 'stray'"),
    ],
)
def test_errors_are_one_line(args, message):
    result = run("prepare_data", *args)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
