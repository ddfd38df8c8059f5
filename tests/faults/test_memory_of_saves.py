"""A run that saves all the time needs no more memory than one that has saved ten times."""

import os
import subprocess
import sys
import time

import pytest

EVERY, SAVES = 3, 112


def _resident_kb(process):
    """None: it has just ended."""
    with open(f"/proc/{process.pid}/status") as status:
        lines = [line.split() for line in status]
    return next((int(line[1]) for line in lines if line[0] == "VmRSS:"), None)


def _landed(workdir):
    sums = (workdir / "checkpoints").glob("*.sha256")
    return max((int(path.name.removesuffix(".sha256")) for path in sums), default=0)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="tells resident memory")
def test_fifty_saves_leave_nothing_behind(config_file, tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "lmjax.main", f"--config={config_file}"]
    command += [f"--workdir={workdir}", f"--config.train.num_steps={EVERY * SAVES}"]
    command += [f"--config.checkpoint.every={EVERY}", "--config.eval.every=1000"]
    resident = {}  # kB, by saves that have landed
    with (tmp_path / "output").open("w") as output:
        run = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | {"XLA_FLAGS": ""}
        )
        while run.poll() is None:
            resident.setdefault(_landed(workdir) // EVERY, _resident_kb(run))
            time.sleep(0.01)
    assert run.returncode == 0, (tmp_path / "output").read_text()
    begun = min(number for number in resident if number >= 10)
    half, end = (max(n for n in resident if n <= begun + more) for more in (50, 100))
    # Within the first half, a table of Python's may become full and double, which is some MB once.
    assert resident[end] < 1.04 * resident[begun], resident
    assert resident[end] < 1.02 * resident[half], resident
