import errno

import fsspec
import pytest

from lmjax import paths
from lmjax.errors import UserError


class NoCredentialsError(Exception):
    """As botocore raises it."""


class ClientError(Exception):
    """As aiohttp raises it."""


NoCredentialsError.__module__ = "botocore.exceptions"
ClientError.__module__ = "aiohttp.client_exceptions"


@pytest.mark.parametrize(
    ("url", "error", "parts"),
    [
        ("gs://b/x", FileNotFoundError("b/x"), ["gs://b/x: not there", "create the bucket"]),
        ("gs://b/401", FileNotFoundError("b/401"), ["not there"]),
        ("gs://b/x", ValueError('NOT_FOUND: Error writing "gs://b/x"'), ["not there"]),
        ("gs://credentials/x", ClientError("credentials/x: timeout"), ["check the network"]),
        ("gs://b/x", OSError("Forbidden: b/x"), ["no credentials", "gcloud auth"]),
        ("s3://b/x", NoCredentialsError("Unable to locate"), ["no credentials", "aws configure"]),
        ("s3://b/x", PermissionError("Access Denied"), ["no credentials", "AWS_ACCESS_KEY_ID"]),
        ("hf://datasets/a", PermissionError("gated"), ["HF_TOKEN"]),
        ("gs://b/x", OSError(errno.ENOSPC, "No space left"), ["disk is full", "free some space"]),
        ("gs://b/x", ImportError("Please install gcsfs"), ["pip install 'lmjax[gcs]'"]),
        ("gs://b/x", ClientError("Cannot\nconnect"), ["check the network"]),
    ],
)
def test_what_goes_wrong_is_one_line_of_cause_and_fix(url, error, parts):
    with pytest.raises(UserError) as caught, paths.errors(url):
        raise error
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_defects_and_local_errors_pass_through():
    with pytest.raises(KeyError), paths.errors("gs://b/x"):
        raise KeyError("a defect")
    with pytest.raises(FileNotFoundError), paths.errors("/local/x"):
        raise FileNotFoundError("x")


def test_an_unknown_scheme_is_said():
    with pytest.raises(UserError, match=r"ftpx:// is no kind of storage"):
        paths.filesystem("ftpx://host/x")


def test_a_folder_goes_up_and_comes_back(tmp_path):
    (tmp_path / "here" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "a").write_bytes(b"1")
    (tmp_path / "here" / "deep" / "b").write_bytes(b"22")
    url = "memory://updown/run"
    names = paths.files_below(tmp_path / "here")
    assert names == ["a", "deep/b"]
    paths.upload(tmp_path / "here", url, names)
    assert paths.find(url) == names
    assert paths.size(paths.join(url, "deep", "b")) == 2
    paths.download(url, tmp_path / "there", names)
    assert (tmp_path / "there" / "deep" / "b").read_bytes() == b"22"
    assert paths.read_bytes(url + "/missing") is None
    assert paths.find("memory://updown/nothing") == []
    fsspec.filesystem("memory").rm("/updown", recursive=True)


def test_local_paths_are_not_remote(tmp_path):
    assert not paths.is_remote(tmp_path)
    assert paths.is_remote("gs://b/x")
