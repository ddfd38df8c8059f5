import json
import os
import subprocess
import sys
import time
import uuid

import pytest

from lmjax import paths
from lmjax.errors import UserError
from lmjax.train import lease as lease_lib
from lmjax.train.lease import Lease


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease_lib, "BEAT", 0.02)
    monkeypatch.setattr(lease_lib, "STALE", 0.3)


@pytest.fixture
def url():
    return f"memory://lease/{uuid.uuid4().hex}"


def take(url):
    lines = []
    return Lease(url, log=lines.append), lines


def leave(url, **fields):
    """The lock of a process that shows no life."""
    holder = {"token": "other", "host": "far", "machine": "another", "pid": 1, "time": 0.0}
    paths.write_bytes(f"{url}/.lock", json.dumps({**holder, **fields}).encode())


def test_a_living_holder_keeps_others_out(url):
    lease, _ = take(url)
    with pytest.raises(UserError, match=f"in use by process {os.getpid()} on "):
        take(url)
    lease.release()
    assert paths.read_bytes(f"{url}/.lock") is None
    take(url)[0].release()


def test_a_silent_holder_is_waited_for_then_replaced(url):
    leave(url)
    began = time.monotonic()
    lease, lines = take(url)
    assert time.monotonic() - began >= 0.3
    assert "process 1 on far; waiting up to" in lines[0]
    lease.check()
    lease.release()


def test_a_holder_of_this_machine_that_ended_is_replaced_at_once(url):
    lease, _ = take(url)
    machine = json.loads(paths.read_bytes(f"{url}/.lock"))["machine"]
    lease.release()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    leave(url, machine=machine, pid=ended.pid)
    lease, lines = take(url)
    assert lines == []
    lease.release()


def test_a_torn_lock_is_taken_over_too(url):
    paths.write_bytes(f"{url}/.lock", b"{")
    take(url)[0].release()


def test_who_was_replaced_stops_and_leaves_the_lock(url):
    lease, _ = take(url)
    leave(url)
    with pytest.raises(UserError, match="taken over by process 1 on far"):
        lease.check()
    time.sleep(0.06)  # its heartbeat does not take it back
    lease.release()
    assert json.loads(paths.read_bytes(f"{url}/.lock"))["token"] == "other"
