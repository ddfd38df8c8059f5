"""The device has its next step, and that step's batch, before the host waits for the one before."""

import collections

import jax
import pytest
import small_run

from lmjax import runner
from lmjax.train import setup
from lmjax.train.step import TrainStep

STEPS = 8


@pytest.fixture
def events(monkeypatch):
    """What the host does, in order: place a batch, launch a step, wait for an array."""
    happened = []

    def noted(owner, name, event):
        made = getattr(owner, name)

        def wrapped(*args, **kwargs):
            happened.append(event)
            return made(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)

    noted(setup.Program, "place", "place")
    noted(TrainStep, "__call__", "launch")
    noted(jax, "device_get", "wait")
    noted(jax, "block_until_ready", "block")
    return happened


def test_two_batches_are_on_the_device_whenever_the_host_waits(tmp_path, events):
    changes = {"train.num_steps": STEPS, "eval.every": 99, "checkpoint.every": 99, "log.every": 99}
    request = runner.Request(small_run.config_file(tmp_path), str(tmp_path / "run"), changes)
    assert runner.train(request) == 0
    events = events[events.index("place") :]  # before it, the state is made
    waits = 0
    for i, event in enumerate(events):
        done = collections.Counter(events[:i])
        if waits == STEPS - 1:  # the last step is followed by none; the run ends
            break
        assert event != "block"
        if event == "wait":  # for step `waits + 1`
            assert done["launch"] == done["place"] == waits + 2
            waits += 1
    assert waits == STEPS - 1
