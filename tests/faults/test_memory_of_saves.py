"""A run that saves all the time needs no more memory than one that has saved ten times."""

import json
import os
import subprocess
import sys

import pytest

_RUN = """
import json, sys
from lmjax import runner
from lmjax.train.checkpoint import Checkpoints

save, resident = Checkpoints.save, []

def watched(self, *arguments):
    self.wait()
    with open("/proc/self/status") as status:
        resident.extend(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    save(self, *arguments)

Checkpoints.save = watched
changes = {"train.num_steps": 62, "checkpoint.every": 1, "eval.every": 1000}
assert runner.train(runner.Request(sys.argv[1], sys.argv[2], changes)) == 0
print(json.dumps(resident))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="tells resident memory")
def test_fifty_saves_leave_nothing_behind(config_file, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _RUN, config_file, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XLA_FLAGS": ""},
    )
    assert done.returncode == 0, done.stderr
    resident = json.loads(done.stdout.splitlines()[-1])  # kB, before each save
    assert len(resident) == 62
    assert resident[60] < 1.02 * resident[10], resident
