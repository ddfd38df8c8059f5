"""A tiny run that nothing disturbed, and the compilations that all runs share."""

import pytest
import small_run
from faulty import run

COMPILED_ONCE = {  # else only what takes longer than a second is kept
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def config_file(tmp_path_factory):
    return small_run.config_file(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def start(config_file, compiled):
    """Starts the run in a workdir, with a fault or without."""

    def start(workdir, *arguments, fault="", **settings):
        return run(
            f"--config={config_file}",
            f"--workdir={workdir}",
            "--config.log.ledger=True",
            *arguments,
            fault=fault,
            **COMPILED_ONCE | {"JAX_COMPILATION_CACHE_DIR": compiled} | settings,
        )

    return start


@pytest.fixture(scope="session")
def whole(start, tmp_path_factory):
    """The workdir of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    ended = start(workdir)
    assert ended.code == 0, ended.err
    return workdir
