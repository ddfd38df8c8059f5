"""Curations that are killed, and other executors: the same bytes in the end."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("datatrove")
pytest.importorskip("spacy")
pytest.importorskip("py3langid")

import curated

pytestmark = pytest.mark.slow

FILES = 6


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Files of prose, each with copies of what is in others."""
    folder, passages = tmp_path_factory.mktemp("text"), curated.prose(60)
    for i in range(FILES):
        mine = passages[i::FILES] + passages[(i + 1) % FILES :: 2 * FILES]
        records = [{"text": passage, "id": f"{i}-{j}"} for j, passage in enumerate(mine)]
        curated.write(folder / f"{i}.jsonl", records)
    return folder


def command(text, out, **flags):
    flags = {"num_workers": 2} | flags
    made = [f"--{name}={value}" for name, value in flags.items()]
    return [sys.executable, str(curated.TOOL), f"--input={text}", f"--output={out}", *made]


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory):
    """What comes of it uninterrupted, and in how many seconds."""
    out, began = tmp_path_factory.mktemp("whole") / "out", time.monotonic()
    subprocess.run(command(text, out), check=True, capture_output=True)
    return curated.sums(out), time.monotonic() - began


def test_killed_five_times_and_run_again(text, whole, tmp_path):
    expected, seconds = whole
    rng, out = random.Random(0), tmp_path / "out"
    moments = [(i + rng.random()) * 0.8 * seconds / 5 for i in range(5)]
    for moment in moments:
        process = subprocess.Popen(
            command(text, out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command(text, out), check=True, capture_output=True, text=True)
    assert "documents left" in done.stdout
    assert curated.sums(out) == expected


def test_ray_gives_the_same_bytes(text, whole, tmp_path):
    pytest.importorskip("ray")
    flags = {"executor": "ray"}
    subprocess.run(
        command(text, tmp_path / "out", **flags),
        check=True,
        capture_output=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"},
    )
    assert curated.sums(tmp_path / "out") == whole[0]


SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
array = re.search(r"^#SBATCH --array=(\\d+)-(\\d+)", script, re.MULTILINE)
first, last = map(int, array.groups()) if array else (0, 0)
for i in range(first, last + 1):
    env = os.environ | {{"SLURM_ARRAY_TASK_ID": str(i), "SLURM_JOB_ID": "1"}}
    subprocess.run(["bash", sys.argv[-1]], check=True, env=env, stdout=sys.stderr)
print("Submitted batch job 1")
"""


def test_slurm_gives_the_same_bytes(text, whole, tmp_path):
    """By an `sbatch` that runs what it is given at once, and an `srun` that just runs."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "sbatch").write_text(SBATCH.format(python=sys.executable))
    (bin / "srun").write_text(
        '#!/bin/bash\nwhile [[ "$1" =~ ^(-.*|[0-9]+)$ ]]; do shift; done\nexec "$@"\n'
    )
    for tool in bin.iterdir():
        tool.chmod(0o755)
    folder = os.path.dirname(sys.executable)
    env = os.environ | {"PATH": f"{bin}:{folder}:{os.environ['PATH']}"}
    flags = {"executor": "slurm", "slurm_partition": "cpu"}
    queue = command(text, tmp_path / "out", **flags)
    queued = subprocess.run(
        queue, capture_output=True, text=True, env=env, cwd=tmp_path, check=False
    )
    assert not queued.returncode, queued.stderr[-3000:]
    assert "queued" in queued.stdout
    shown = subprocess.run(queue, check=True, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert "documents left" in shown.stdout
    shutil.rmtree(tmp_path / "out" / "work", ignore_errors=True)
    assert curated.sums(tmp_path / "out") == whole[0]
