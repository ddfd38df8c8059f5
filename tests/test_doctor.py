"""tools/doctor.py: what it says of good and of damaged things."""

import shutil
from unittest import mock

import jax
import numpy as np
import pytest
import small_run
import tool_run
from packaging.requirements import Requirement
from small_run import CORPUS

from lmjax import config_file, fields, runner
from lmjax.doctor import fit, machine, report
from lmjax.doctor.examine import examine
from lmjax.errors import UserError
from lmjax.train import device as device_lib
from lmjax.train import setup, trained
from lmjax.train.checkpoint import save_weights


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    """A run with a checkpoint, its config file, and the store of its text."""
    root = tmp_path_factory.mktemp("doctor")
    (root / "text.jsonl").write_text("".join(CORPUS.read_text().splitlines(keepends=True)[:12]))
    (root / "gpt2.py").write_text(small_run.config(root / "text.jsonl", root / "cache"))
    with mock.patch.object(runner.loop, "run", lambda state, *_, **__: (state, 1)):
        code = runner.train(runner.Request(str(root / "gpt2.py"), str(root / "run")))
    assert code == runner.PREEMPTED
    (store,) = (root / "cache" / "stores").glob("*/")
    shutil.copytree(store, root / "store")
    return root


def problems(sections):
    """Those of what was examined, not of the machine that runs the tests."""
    return [
        problem
        for section in sections
        if section.title not in ("versions", "this machine")
        for problem in section.problems
    ]


def rows(sections, title):
    (section,) = (s for s in sections if s.title.startswith(title))
    return {row[0]: row[1:] for row in section.rows}


def test_a_healthy_run(at):
    sections = examine(workdir=str(at / "run"), data=str(at / "store"))
    assert problems(sections) == []
    run = rows(sections, "workdir")
    assert run["checkpoints"] == ("1: complete",)
    assert "all parameters finite" in run["step 1"][0]
    assert "every SHA-256" in rows(sections, "store")["verified"][0]
    assert rows(sections, "versions")["numpy"][0] == np.__version__
    assert rows(sections, "devices")["kind"] == (f"{jax.device_count()} x cpu (cpu)",)
    assert rows(sections, "does")["fits"] == ("yes",)


def test_damage_is_found_and_nothing_is_written(at):
    torn, store = at / "torn", at / "torn_store"
    shutil.copytree(at / "run", torn)
    shutil.copytree(at / "store", store)
    for file in (torn / "checkpoints/1/state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:50])
    with (torn / "lmjax.log").open("a") as log:
        log.write("2026-11-21 12:00:00,000 ERROR the bucket is gone; make it again\n")
    shard = store / "train-00000.arrayrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    before = sorted(str(p) for p in torn.rglob("*"))
    found = problems(examine(workdir=str(torn), data=str(store)))
    assert sorted(str(p) for p in torn.rglob("*")) == before
    assert [p for p in found if "the bucket is gone; make it again" in p]
    assert [p for p in found if "checkpoints/1 is damaged" in p and "from a copy" in p]
    assert [p for p in found if "train-00000.arrayrecord: has" in p]
    assert len(found) == 3


def test_parameters_that_are_not_finite_are_found(at):
    folder = at / "diverged"
    shutil.copytree(at / "run", folder)
    shutil.rmtree(folder / "checkpoints")
    params = jax.tree.map(np.array, trained.load(str(at / "run")).params)
    params["embed"]["token"][0, 0] = np.nan
    save_weights(str(folder / "checkpoints"), params, {})
    (found,) = problems(examine(workdir=str(folder)))
    assert "parameter embed/token is not finite" in found


def test_raw_text_is_looked_into(at):
    (at / "mixed.jsonl").write_bytes(b'{"text": "good"}\n' * 20 + b"not json\n" * 5)
    (found,) = problems(examine(data=str(at / "mixed.jsonl")))
    assert "5 not JSON" in found
    (found,) = problems(examine(data=str(at / "nowhere")))
    assert "no such file" in found


def test_memory_is_that_of_a_dry_run(at):
    config = config_file.make(config_file.load(str(at / "gpt2.py")), {})
    found = fit.fit(config, jax.devices(), 1e9)
    program = setup.make_program(setup.resolve(config))
    leaves = jax.tree.leaves(program.abstract.params)
    assert found.num_params == sum(leaf.size for leaf in leaves)
    assert found.parts["parameters"] == 4 * found.num_params
    assert found.micro_rows == program.micro_rows


def test_what_does_not_fit_says_how_it_would(monkeypatch):
    config = config_file.make({"family": "gpt2", "model": {"preset": "small"}}, {})
    plain = fit.fit(config, jax.devices(), 1e9)
    full = fit.fit(fields.replace(config, {"train.remat": "full"}), jax.devices(), 1e9)
    between = (plain.num_bytes + full.num_bytes) // 2
    monkeypatch.setattr(device_lib, "capacity", lambda device: between)
    (found,) = fit.one("gpt2", config, jax.devices()).problems
    assert found.endswith("; set --config.train.remat=full")
    monkeypatch.setattr(device_lib, "capacity", lambda device: 1000)
    (found,) = fit.one("gpt2", config, jax.devices()).problems
    assert "take a smaller model" in found


def test_a_run_that_is_too_large_is_warned_of(at, monkeypatch, capsys):
    shutil.copytree(at / "run", at / "large")
    monkeypatch.setattr(device_lib, "capacity", lambda device: 999)
    monkeypatch.setattr(runner.loop, "run", lambda state, *_, **__: (state, 2))
    runner.train(runner.Request(None, str(at / "large")))
    assert "there are 999 B: it may be killed" in capsys.readouterr().out


def test_extras_are_followed_to_their_ends(monkeypatch):
    installed = {"lmjax": "0.1", "jax": "0.10.2", "gcsfs": "2026.1"}
    requires = {
        "lmjax": [
            'jax[cuda]; extra == "gpu"',
            'gcsfs>=2025.3; extra == "gcs"',
            'lmjax[gpu,gcs]; extra == "all"',
            "numpy>=2",
        ],
        "jax": ['plugin<2; extra == "cuda"', "numpy"],
    }

    def version(name):
        if name not in installed:
            raise machine.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(machine.metadata, "version", version)
    monkeypatch.setattr(machine.metadata, "requires", lambda name: requires.get(name))
    assert machine._missing(Requirement("lmjax[gcs]")) == set()
    assert machine._missing(Requirement("lmjax[all]")) == {"plugin<2"}


def test_the_block_holds_no_names_and_no_secrets(monkeypatch):
    monkeypatch.setenv("HOME", "/data/people/alice")
    monkeypatch.setenv("MY_API_TOKEN", "abcdefgh12345")
    text = "/data/people/alice/x /home/bob/y /Users/carol/z s3://me:pw@b/c abcdefgh12345"
    assert report.scrubbed(text) == "~/x ~/y ~/z s3://***@b/c ***"
    section = report.Section("a", rows=[("b", "c")], problems=["d; e"])
    lines = report.block([section]).splitlines()
    assert lines == [report.BEGIN, "a", "  b | c", "  PROBLEM: d; e", report.END]


def test_a_check_that_fails_is_a_problem():
    def check(error):
        raise error

    assert report.checked("x", check, UserError("a; b")).problems == ["a; b"]
    (said,) = report.checked("x", check, KeyError("a")).problems
    assert said.startswith("x: KeyError: 'a'; ")


def test_the_tool_shows_what_fits_and_says_it_by_its_exit_code(at, monkeypatch):
    monkeypatch.setattr(device_lib, "matmul_flops", lambda *_: 1e11)
    monkeypatch.chdir(at)
    done = tool_run.run("doctor")
    assert (done.code, done.err) == (int("nothing is wrong" not in done.out), "")
    for word in ("bert_tiny", "t5_11b", "extras", report.BEGIN, report.END):
        assert word in done.out
    done = tool_run.run("doctor", f"--config={at}/nope.py")
    assert (done.code, done.err) == (1, "")
    assert "1. config file" in done.out
    assert "fix: see configs/" in done.out
