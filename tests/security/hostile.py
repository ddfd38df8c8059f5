"""Files that others could make, a watch on whatever is unpickled, and what a refusal is."""

import contextlib
import hashlib
import json
import os
import pickle
import sys

import pytest

from lmjax.data import manifest as manifest_lib
from lmjax.errors import UserError

_watching: list[list[tuple[str, str]]] = []


def _hook(event, arguments):
    if event == "pickle.find_class" and _watching:
        _watching[-1].append(tuple(arguments[:2]))


sys.addaudithook(_hook)  # for as long as the process lives; it does nothing unless it is asked to


@contextlib.contextmanager
def watched():
    """Yields a list of (module, name) of each class or function that an unpickler looks up."""
    found: list[tuple[str, str]] = []
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.pop()


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def pickled(folder):
    """The bytes of a payload."""
    return pickle.dumps(Payload(folder))


def refused(call, message):
    """Asserts that a call ends in one line of cause and fix, with `message`."""
    with pytest.raises(UserError, match=message) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert ";" in text
    assert len(text) < 1500


def with_manifest(folder, change):
    """Changes the manifest of a store, as a forger does: its checksum fits."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_bytes())
    change(manifest)
    file.write_text(json.dumps(manifest_lib.sealed(manifest)))


def with_file(folder, which, content):
    """Gives a store other starts or another origin, as a forger does; returns the file."""

    def change(manifest):
        said = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest["splits"]["train"][which].update(said)

    with_manifest(folder, change)
    file = folder / f"train.{which}.npy"
    file.write_bytes(content)
    return file
