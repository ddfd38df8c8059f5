"""The packages that `.ci/run` installs: each with its SHA-256s, and all that the project wants."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CI = ROOT / ".ci"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINE = re.compile(r"([a-z0-9-]+)==([\w.+]+)(?: ; [\w '.<=>]+)?((?: --hash=sha256:[0-9a-f]{64})+)")


def locked(name):
    """Version and SHA-256s of each package of a lock, which holds nothing else: no URL, no path."""
    lines = (CI / name).read_text().replace(" \\\n   ", "").splitlines()
    found = [LINE.fullmatch(line) for line in lines]
    assert [line[:80] for line, match in zip(lines, found, strict=True) if not match] == []
    packages = {match[1]: (match[2], match[3]) for match in found}
    assert len(packages) == len(lines)
    return packages


def wanted(extras):
    """Requirements of the project with these extras, its own name resolved."""
    of_extra = PROJECT["project"]["optional-dependencies"]
    found = [*PROJECT["project"]["dependencies"]]
    for extra in extras:
        found += of_extra[extra]
    for text in found:  # which grows
        requirement = Requirement(text)
        if requirement.name == "lmjax":
            found += [line for extra in requirement.extras for line in of_extra[extra]]
        else:
            yield requirement


def written(name):
    lines = (CI / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def missing(requirements, packages):
    """What a lock lacks, or has in a version that does not do."""
    return [
        str(requirement)
        for requirement in requirements
        if (found := packages.get(canonicalize_name(requirement.name))) is None
        or not requirement.specifier.contains(found[0], prereleases=True)
    ]


def test_the_lock_has_what_the_project_requires():
    extras = re.findall(r"--extra=([\w-]+)", (CI / "lock").read_text())
    assert set(extras) >= {
        "test",
        "docs",
        "harness",
        "emulators",
        "notebook",
        "curate",
        "curate-ray",
    }
    requirements = [*wanted(extras), *written("build.in"), *written("requirements.in")]
    requirements += map(Requirement, PROJECT["build-system"]["requires"])
    assert len(requirements) > 50
    assert missing(requirements, locked("requirements.txt")) == []
    assert missing(written("build.in"), locked("build.txt")) == []
    assert locked("build.txt").items() <= locked("requirements.txt").items()
    assert missing(written("tpu.in"), locked("tpu.txt")) == []


def test_a_floor_that_rises_is_seen():
    packages = {"jax": ("0.10.2", "")}
    assert missing([Requirement("jax>=0.10.2")], packages) == []
    assert missing([Requirement("jax>=0.11"), Requirement("Flax")], packages) == [
        "jax>=0.11",
        "Flax",
    ]


@pytest.mark.parametrize("name", ["jax", "flax"])
def test_the_oldest_releases_are_locked(name):
    floors = {requirement.name: str(requirement.specifier) for requirement in wanted([])}
    assert floors[name] == f">={locked('requirements.txt')[name][0]}"


def test_nothing_else_is_installed_beside_the_lock():
    first = (CI / "run").read_text().split("\ndeactivate\n")[0]
    installs = [line for line in first.splitlines() if "pip install" in line]
    assert len(installs) == 4
    assert all({"--require-hashes", "--no-deps"} & set(line.split()) for line in installs)
