"""A run of seconds and its export, for all that looks at the folder."""

import pytest
import small_run

from lmjax import runner


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run of a few steps, in a folder with a name of its own."""
    folder = tmp_path_factory.mktemp("secret_place")
    text = folder / "some_text.jsonl"
    text.write_text("".join(small_run.CORPUS.read_text().splitlines(keepends=True)[:60]))
    file = folder / "recipe.py"
    file.write_text(small_run.config(text, folder / "cache"))
    overrides = {"train.num_steps": 4, "log.every": 2, "eval.every": 2}
    request = runner.Request(str(file), str(folder / "my_run"), overrides)
    assert runner.train(request) == 0
    return folder / "my_run"


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    """Its export; not to be changed."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    small_run.export(run, folder)
    return folder
