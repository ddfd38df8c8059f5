"""A run compiles its steps once, and says so of itself."""

import collections
import os
import re
import subprocess
import sys

import pytest
import small_run


@pytest.mark.slow
def test_nothing_is_compiled_again_after_the_first_step(tmp_path):
    """Through evaluations, saves, new windows of metrics, and a restart's first steps."""
    arguments = [
        f"--config={small_run.config_file(tmp_path)}",
        f"--workdir={tmp_path}/run",
        "--config.eval.every=2",
        "--config.checkpoint.every=3",
        "--config.log.every=2",
    ]
    for last in (5, 8):
        done = subprocess.run(
            [sys.executable, "-m", "lmjax.main", *arguments, f"--config.train.num_steps={last}"],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"JAX_LOG_COMPILES": "1", "XLA_FLAGS": ""},
        )
        compiled = re.findall(r"Finished XLA compilation of jit\((\w+)\)", done.stderr)
        times = collections.Counter(compiled)
        assert times["_whole"] == 1  # the training step
        assert times["step"] == 1  # of evaluation
