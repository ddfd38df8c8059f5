"""Bits flipped and files lost in checkpoints: told, passed over, never trained on."""

import shutil

import pytest
import small_run

from lmjax import runner
from lmjax.bench import flips
from lmjax.errors import UserError
from lmjax.train import metrics


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return small_run.config_file(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert runner.train(runner.Request(config, str(workdir))) == 0
    return workdir


def rows(workdir):
    return small_run.comparable(metrics.read(workdir / "metrics.jsonl"))


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def flip(file, place=None):
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 16
    file.write_bytes(bytes(content))


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_every_flipped_bit_is_told(finished, tmp_path):
    damages = flips.Damages(str(finished), tmp_path / "scratch")
    came = [damages(damage) for damage in flips.bits(damages.files, 12, seed=0)]
    assert set(came) == {flips.WENT_BACK}


@pytest.mark.slow
def test_two_hundred_bits_and_every_file(finished, tmp_path):
    came = flips.campaign(str(finished), tmp_path / "scratch", 200, seed=1)
    assert came["bits flipped"] == {flips.WENT_BACK: 200}
    assert set(came["files cut or gone"]) <= {flips.WENT_BACK, flips.EQUAL}
    # Without its sums a checkpoint is judged by its fingerprints alone.
    assert came["files cut or gone"][flips.EQUAL] == 1


def test_a_run_goes_back_one_step_and_ends_the_same(finished, copy):
    flip(largest(copy / "checkpoints" / "24"))
    assert runner.train(runner.Request(None, str(copy))) == 0
    assert rows(copy) == rows(finished)
    mine, theirs = (small_run.parameters(w / "checkpoints" / "24") for w in (copy, finished))
    small_run.assert_same_bits(mine, theirs)
    log = (copy / "lmjax.log").read_text()
    assert "is not what was saved" in log
    assert "going back to step 20" in log
    (aside,) = (p for p in (copy / "checkpoints").glob("damaged_24_*") if p.is_dir())
    assert (aside.parent / f"{aside.name}.sha256").exists()


def test_fingerprints_tell_where_there_are_no_sums(finished, copy):
    (copy / "checkpoints" / "24.sha256").unlink()
    flip(largest(copy / "checkpoints" / "24" / "state"))
    assert runner.train(runner.Request(None, str(copy))) == 0
    assert rows(copy) == rows(finished)
    assert "going back to step 20" in (copy / "lmjax.log").read_text()
    assert small_run.saved_steps(copy) == [20, 24]


def test_a_sound_step_without_sums_gets_them(finished, copy):
    (copy / "checkpoints" / "24.sha256").unlink()
    assert runner.train(runner.Request(None, str(copy), {"train.num_steps": 25})) == 0
    assert small_run.saved_steps(copy) == [24, 25]


def test_where_all_are_damaged_nothing_is_overwritten(copy):
    for step in ("20", "24"):
        flip(largest(copy / "checkpoints" / step))
    before = {p: p.read_bytes() for p in (copy / "checkpoints").rglob("*") if p.is_file()}
    held = rows(copy)
    with pytest.raises(
        UserError, match=r"no checkpoint in .* is sound: .* Nothing was overwritten"
    ):
        runner.train(runner.Request(None, str(copy)))
    assert before == {p: p.read_bytes() for p in (copy / "checkpoints").rglob("*") if p.is_file()}
    assert rows(copy) == held


def test_readers_refuse_a_damaged_step(copy):
    from lmjax.train import trained

    flip(largest(copy / "checkpoints" / "24"))
    with pytest.raises(UserError, match=r"checkpoints/24 is damaged: 24/.* is not what was saved"):
        trained.load(str(copy))
    assert trained.load(str(copy), step=20).step == 20
