import uuid

import jax
import numpy as np
import pytest

from lmjax import paths
from lmjax.errors import UserError
from lmjax.train.copied_checkpoints import CopiedCheckpoints, open_checkpoints

SHARDING = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def state(value):
    return {"a": jax.numpy.full(5, value), "b": jax.numpy.arange(3)}


def steps(url):
    found = {int(name.split("/")[0]) for name in paths.find(url) if "/" in name}
    assert {f"{step}.sha256" for step in found} == {n for n in paths.find(url) if "/" not in n}
    return sorted(found)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def url():
    return f"memory://{uuid.uuid4().hex}/checkpoints"


def test_saves_come_back_and_old_ones_go(url):
    first = open_checkpoints(url, keep=2, keep_period=None)
    assert isinstance(first, CopiedCheckpoints)
    assert first.latest() is None
    for step in (1, 2, 3):
        first.save(step, state(float(step)), {"seed": 7})
    first.close()
    assert steps(url) == [2, 3]

    second = CopiedCheckpoints(url, keep=2)
    assert second.latest() == 3
    assert second.meta(3)["seed"] == 7
    shardings = jax.tree.map(lambda _: SHARDING, state(0.0))
    restored = second.restore(3, jax.eval_shape(lambda: state(0.0)), shardings)
    assert np.array_equal(restored["a"], np.full(5, 3.0))
    second.save(4, state(4.0), {})
    second.close()
    assert steps(url) == [3, 4]


def test_periods_are_kept(url):
    checkpoints = CopiedCheckpoints(url, keep=1, keep_period=2)
    for step in (1, 2, 3, 4, 5):
        checkpoints.save(step, state(0.0), {})
    checkpoints.close()
    assert steps(url) == [2, 4, 5]


def test_a_step_without_its_marker_is_unfinished_and_removed(url):
    checkpoints = CopiedCheckpoints(url, keep=2)
    checkpoints.save(1, state(1.0), {})
    checkpoints.close()
    paths.write_bytes(f"{url}/2/state/torn", b"x")
    paths.write_bytes(f"{url}/0/state/torn", b"x")
    again = CopiedCheckpoints(url, keep=2)
    assert again.latest() == 1
    assert steps(url) == [1]
    again.save(2, state(2.0), {})
    again.close()
    assert "2/state/torn" not in paths.find(url)
    assert steps(url) == [1, 2]


def test_a_failed_copy_is_raised_and_is_no_checkpoint(url, monkeypatch):
    checkpoints = CopiedCheckpoints(url, keep=2)

    def fail(*args):
        raise UserError("no network")

    monkeypatch.setattr(paths, "upload", fail)
    checkpoints.save(1, state(1.0), {})
    with pytest.raises(UserError, match="no network"):
        checkpoints.wait()
    assert checkpoints.latest() is None
    checkpoints.close()


def test_the_marker_is_the_last_to_arrive(url, monkeypatch):
    order = []
    upload, write = paths.upload, paths.write_bytes
    monkeypatch.setattr(paths, "upload", lambda f, u, n: (order.extend(n), upload(f, u, n)))
    monkeypatch.setattr(paths, "write_bytes", lambda u, data: (order.append(u), write(u, data)))
    checkpoints = CopiedCheckpoints(url, keep=2)
    checkpoints.save(1, state(1.0), {})
    checkpoints.close()
    assert order[-1] == f"{url}/1/commit_success.txt"
    assert "commit_success.txt" not in order
