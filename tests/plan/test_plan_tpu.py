"""Plans of steps compiled for TPUs that are not there. Needs libtpu."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmjax import config_file
from lmjax.errors import UserError
from lmjax.plan import plan, topology

pytest.importorskip("libtpu")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
SMALL = {"model.hidden_size": 256, "model.num_heads": 4, "model.num_layers": 4}


@pytest.fixture(scope="module", autouse=True)
def environment():
    """Without what `topology` says to libtpu, afterwards."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def made(name, where, **fields):
    raw = config_file.load(str(ROOT / "configs" / f"{name}.py"))
    config = config_file.make(raw, {k.replace("__", "."): v for k, v in fields.items()} | SMALL)
    return plan.make(config, topology.make(where), plan.Asked())


def test_a_compiled_plan_has_the_compilers_figures():
    found = made("gpt2_tiny", "v5e:2x2", mesh__preset="fsdp")
    figures = plan.as_dict(found)
    assert figures["basis"] == "compiled"
    assert figures["fits"]
    assert figures["step"]["fused_calls"] >= 3  # forward, and two on the way back
    memory = figures["memory"]
    parts = {name: n for name, n in memory.items() if name not in ("total", "capacity")}
    assert memory["total"] == sum(parts.values())
    # A quarter of everything, and what divides less.
    assert 4 * memory["parameters"] == pytest.approx(4 * figures["parameters"], rel=0.01)
    assert 4 * memory["optimizer"] == pytest.approx(8 * figures["parameters"], rel=0.01)
    assert {axis for each in figures["collectives"] for axis in each["axes"]} == {"fsdp"}
    sent = sum(each["bytes"] for each in figures["collectives"])
    assert sent > 2 * figures["parameters"]  # gathered in bfloat16, at least once
    json.dumps(figures)


def test_what_the_compiler_refuses_fits_in_another_way():
    rows = {"train__global_batch_size": 12288, "train__micro_batch_size": 12288}
    found = made("gpt2_tiny", "v5e:2x2", **rows)
    assert not found.fit.fits
    assert found.fit.num_bytes > found.fit.capacity
    assert found.fit.capacity == found.topology.capacity  # libtpu's figure is that of the table
    assert found.way == {"train.remat": "full"} or found.way == {"train.remat": "dots"}
    assert found.found.fits
    assert found.found.compiled.fits


def test_between_slices_go_gradients_alone():
    found = made("gpt2_tiny", "2xv5e:2x2", mesh__preset="hybrid")
    outer = [each for each in found.collectives() if each.outer]
    assert {each.axes for each in outer} <= {("data",), ("data", "fsdp")}
    gathered = [each for each in found.collectives() if each.kind == "all-gather"]
    assert gathered
    assert not any(each.outer for each in gathered)


def test_no_such_slice():
    with pytest.raises(UserError, match=r"--topology=v5e:3x7: there is no such slice; libtpu says"):
        topology.make("v5e:3x7")


def test_the_tool_is_quiet_but_for_what_it_compiles():
    command = [sys.executable, "tools/plan.py", "--config=configs/bert_tiny.py"]
    done = subprocess.run(
        [*command, "--topology=v5e:1x1"], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["compiling the step for v5e:1x1"]
    assert "compiled in" in done.stdout
