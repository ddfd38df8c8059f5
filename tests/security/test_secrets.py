"""What the environment keeps secret is in no file that a run, an export or an error leaves."""

import contextlib
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import tool_run
import zstandard

from lmjax import redact, runner
from lmjax.doctor import report
from lmjax.errors import UserError
from lmjax.fields import from_dict
from lmjax.train.console import Console, logger

CANARIES = {
    name: f"canary-{number:02d}-{'x7Kq' * 5}"
    for number, name in enumerate(
        [
            "HF_TOKEN",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "WANDB_API_KEY",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "SOME_PASSWORD",
        ]
    )
}
IN_A_URL = "canary-in-a-url-x7Kqx7Kq"
URL = f"s3://user:{IN_A_URL}@bucket/text.jsonl"
ZSTD = b"\x28\xb5\x2f\xfd"

# One process does it all, as a shell with these variables would, one command after the other.
COMMANDS = """
import os, sys
sys.path.insert(0, sys.argv[1])
import small_run, tool_run

def run(code, *arguments):
    done = tool_run.run(*arguments)
    print(done.out, done.err, sep="")
    assert done.code == code, done

with open("gpt2.py", "w") as file:
    file.write(small_run.config(small_run.CORPUS, "cache"))
run(0, "main", "--config=gpt2.py", "--workdir=run", "--config.train.num_steps=4",
    "--config.eval.num_batches=1", "--config.tokenizer.sample_bytes=50000")
run(0, "export_hf", "--workdir=run", "--output=exported")
tool_run.run("doctor", "--workdir=run")  # whose exit code is the machine's
run(1, "main", "--workdir=run", "--config.data.path=" + sys.argv[2])
run(1, "main", "--config=gpt2.py", "--workdir=other", "--config.data.path=" + sys.argv[2])
run(1, "score", "--workdir=run", "--input=" + sys.argv[2], "--output=scored.jsonl")

from lmjax import runner  # a defect whose message repeats what the process knows

def fail(*_):
    raise ZeroDivisionError(" ".join(map(str, os.environ.items())))

train, runner.train = runner.train, fail
run(1, "main", "--workdir=run")
runner.train, runner._train = train, fail
run(1, "main", "--workdir=run", "--config.train.num_steps=6")
"""


def contents(file):
    """The bytes of a file, and of every zstd frame in it."""
    data = Path(file).read_bytes()
    yield data
    at = data.find(ZSTD)
    while at >= 0:
        with contextlib.suppress(zstandard.ZstdError):  # four bytes that look like one
            yield zstandard.ZstdDecompressor().decompressobj().decompress(data[at:])
        at = data.find(ZSTD, at + 1)


def leaks(folder, secrets):
    """(file, secret) of all that stands somewhere below a folder, in a name or inside."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return [
        (str(path), secret)
        for path in files
        for data in (os.fsencode(path), *contents(path))
        for secret in secrets
        if secret.encode() in data
    ]


@pytest.mark.slow
def test_no_secret_is_in_any_file(tmp_path):
    (tmp_path / "tmp").mkdir()
    environment = os.environ | CANARIES | {"TMPDIR": str(tmp_path / "tmp")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "xdg"), "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", COMMANDS, str(Path(__file__).parents[1]), URL]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    for wanted in ("run/lmjax.log", "run/config.json", "run/checkpoints/4", "exported/README.md"):
        assert wanted in names
    assert any(name.startswith("run/tensorboard/") for name in names)
    assert any(name.startswith("tmp/lmjax_traceback_") for name in names)
    assert "ZeroDivisionError" in (tmp_path / "run/lmjax.log").read_text()
    secrets = [*CANARIES.values(), IN_A_URL]
    assert leaks(tmp_path, secrets) == []
    assert [secret for secret in secrets if secret in done.stdout + done.stderr] == []
    decompressed = [data for path in tmp_path.rglob("d/*") for data in [*contents(path)][1:]]
    assert sum(map(len, decompressed)) > 10_000  # the search sees into checkpoints


def test_the_search_finds_what_is_there(tmp_path):
    (tmp_path / "plain").write_text("a canary")
    (tmp_path / "packed").write_bytes(b"head" + zstandard.compress(b"a canary" * 9) + b"tail")
    (tmp_path / "canary").write_text("")
    (tmp_path / "none").write_bytes(ZSTD + b"canar")
    found = {Path(file).name for file, _ in leaks(tmp_path, ["a canary", "/canary"])}
    assert found == {"canary", "packed", "plain"}


@pytest.fixture
def canaries(monkeypatch):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MY_KEY", "short")
    monkeypatch.setenv("LONG_KEY", CANARIES["HF_TOKEN"] + "more")


def test_redaction(canaries):
    text = f"short {CANARIES['HF_TOKEN']}more, {CANARIES['SOME_PASSWORD']}; {URL}"
    assert redact.redacted(text) == "short ***, ***; s3://***@bucket/text.jsonl"
    url = "https://host/f?x=1&X-Amz-Signature=abc&Expires=1&token=def"
    said = "https://host/f?x=1&X-Amz-Signature=***&Expires=1&token=***"
    assert redact.redacted(url) == said
    for url in ("sftp://user@host/a", "abfs://container@account/a", "hf://datasets/a/b@main/c"):
        assert redact.redacted(url) == url
    assert report.scrubbed(CANARIES["WANDB_API_KEY"]) == "***"


def test_what_is_no_secret(tmp_path, monkeypatch):
    """Else lines would be without the paths and words that they are about."""
    key = tmp_path / "key.json"
    key.touch()
    innocent = {
        "TOKENIZER": "/data/tokenizer",
        "TOKENIZERS_PARALLELISM": "disabled",
        "GIT_AUTHOR_NAME": "A. N. Author",
        "XAUTHORITY": "/home/user/.Xauthority",
        "KEYBOARD": "qwertyuiop",
        "SSH_AUTH_SOCK": str(tmp_path),
        "GOOGLE_APPLICATION_CREDENTIALS": str(key),
    }
    for name, value in innocent.items():
        monkeypatch.setenv(name, value)
        assert redact.redacted(f"about {value}.") == f"about {value}."
    for name in ("API_KEY2", "APIKEY", "PGPASSWORD", "my_secrets", "SSH_PASSPHRASE"):
        monkeypatch.setenv(name, "/x7Kqx7Kq")
        assert redact.redacted("about /x7Kqx7Kq.") == "about ***."
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("canaries")
def test_tracebacks_and_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail(*_):
        raise ZeroDivisionError(CANARIES["HF_TOKEN"])

    monkeypatch.setattr(runner, "train", fail)
    done = tool_run.run("main", f"--workdir={tmp_path}/run")
    assert "ZeroDivisionError: ***" in done.err
    console = Console()
    console.log_to(tmp_path / "lmjax.log")
    try:
        logger.warning(f"a line with {CANARIES['AWS_SECRET_ACCESS_KEY']}")
        try:
            fail()
        except ZeroDivisionError as error:
            console.log_only("".join(traceback.format_exception(error)))
    finally:
        console.close()
    assert "WARNING a line with ***" in (tmp_path / "lmjax.log").read_text()
    assert "ZeroDivisionError: ***" in (tmp_path / "lmjax.log").read_text()
    assert len(list(tmp_path.glob("lmjax_traceback_*"))) == 1
    assert leaks(tmp_path, CANARIES.values()) == []


@pytest.mark.parametrize(
    "url",
    [
        URL,
        f"simplecache::https://{IN_A_URL}@host/a.jsonl",
        f"https://host/a.jsonl?X-Amz-Signature={IN_A_URL}",
        f"https://host/a.jsonl?n=1&access_token={IN_A_URL}",
    ],
)
@pytest.mark.parametrize(
    "field", ["data.path", "tokenizer.path", "data.sources", "train.init_from"]
)
def test_credentials_in_paths_are_refused(url, field):
    value = [["a", "b"], ["c", url]] if field == "data.sources" else url
    section, name = field.split(".")
    with pytest.raises(
        UserError, match=rf"^config.{field}=.*\*\*\*.*: holds credentials, .*; "
    ) as e:
        from_dict({section: {name: value}})
    assert IN_A_URL not in str(e.value)


@pytest.mark.parametrize(
    "url",
    [
        "gs://bucket/a@b/c",
        "abfs://container@account/a",
        "sftp://user@host/a",
        "hf://datasets/a/b@main/c.parquet",
        "https://host/a.jsonl?max_tokens=5&download=true",
        "a:b@c/d",
    ],
)
def test_paths_that_hold_none(url):
    redact.check_url(url)
    assert from_dict({"data": {"path": url}}).data.path == url


@pytest.mark.parametrize(
    "tool",
    ["main --workdir=", "train_tokenizer --output=o --vocab_size=300 --model_type=bpe --input="],
)
def test_flags_hold_none_either(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tool_run.run(*(tool + URL).split(" "))
    assert done.code == 1
    assert "holds credentials" in done.err
    assert IN_A_URL not in done.err + done.out
    assert leaks(tmp_path, [IN_A_URL]) == []
