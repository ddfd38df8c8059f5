"""Signs of life of several hosts: who shows none is named, and nobody else."""

import json

import pytest

from lmjax.train import life as life_lib
from lmjax.train.life import Life


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(life_lib, "time", clock)
    return clock


def test_who_shows_no_life_is_named(tmp_path, clock):
    hosts = [Life(str(tmp_path), index, 3, 6.0) for index in range(3)]
    for clock.now in range(10):
        assert [host.silent() for host in hosts] == [None] * 3
    found = []
    for clock.now in range(10, 20):
        found += [(clock.now, host.silent()) for host in hosts[:2]]
    named = [(now, said) for now, said in found if said]
    assert named[0][0] == 17  # the others saw its last sign at 10
    assert {said.split(" (")[0] for _, said in named} == {"host 2"}
    assert "process" in named[0][1]


def test_who_has_not_begun_or_ran_before_is_not_missed(tmp_path, clock):
    (tmp_path / "1.alive").write_text(json.dumps({"host": "old", "process": 1, "sign": 7}))
    first = Life(str(tmp_path), 0, 3, 6.0)
    for clock.now in range(100):
        assert first.silent() is None


@pytest.mark.parametrize(("number", "limit"), [(1, 6.0), (2, None)])
def test_alone_or_without_a_limit_nothing_is_written(tmp_path, clock, number, limit):
    alone = Life(str(tmp_path), 0, number, limit)
    for clock.now in range(100):
        assert alone.silent() is None
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_no_hosts_end(tmp_path, clock):
    (tmp_path / "file").write_text("")
    life = Life(str(tmp_path / "file"), 0, 2, 6.0)
    for clock.now in range(20):
        assert life.silent() is None
