"""Plans from configs alone: their figures by hand, and what is said of what does not fit."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lmjax import config_file, flops
from lmjax.errors import UserError
from lmjax.plan import cost, plan, raw_text, topology

ROOT = Path(__file__).parents[2]


def config(name, **fields):
    raw = config_file.load(str(ROOT / "configs" / f"{name}.py"))
    return config_file.make(raw, {key.replace("__", "."): value for key, value in fields.items()})


def made(name, where, asked=None, **fields):
    there = topology.make(where, analytic=True)
    return plan.make(config(name, **fields), there, asked or plan.Asked())


def test_the_figures_of_a_plan_by_hand():
    found = plan.as_dict(made("gpt2_small", "h100:8"))
    number = 50_304 * 768 + 1024 * 768 + 12 * (12 * 768**2 + 13 * 768) + 2 * 768
    assert found["parameters"] == number
    assert found["memory"]["parameters"] == 4 * number
    assert found["memory"]["optimizer"] == 8 * number + 4 + 4  # moments, and two counts of steps
    assert found["memory"]["total"] < found["memory"]["capacity"] == 80 * 2**30
    assert found["fits"]
    assert "way" not in found
    assert found["topology"] == {
        "name": "h100:8",
        "devices": 8,
        "kind": "NVIDIA H100 80GB HBM3",
        "mesh": {"data": 8},
    }
    (sums,) = found["collectives"]
    assert (sums["kind"], sums["axes"], sums["count"]) == ("all-reduce", ("data",), 1)
    assert sums["bytes"] == 4 * number
    assert sums["received"] == 2 * 4 * number * 7 // 8
    assert not sums["outer"]
    tokens, run = found["tokens"], 572_000 * 512 * 1024
    assert tokens["run"] == config("gpt2_small").train.num_steps * 512 * 1024 == run
    assert tokens["compute_optimal"] == 20 * number
    assert tokens["raw_text_bytes"] == [round(80 * number / 0.03), round(80 * number / 0.01)]
    roofline, time, peak = found["roofline"], found["time"], 8 * 989e12
    assert roofline["compute"] == pytest.approx(found["flops"]["step_causal"] / peak)
    assert roofline["network"] == pytest.approx(sums["received"] / 450e9)
    assert roofline["seconds"] == max(roofline[key] for key in ("compute", "memory", "network"))
    assert time["seconds_per_step"] == pytest.approx(found["flops"]["step"] / peak / 0.4)
    steps = config("gpt2_small").train.num_steps
    assert time["days"] == pytest.approx(time["seconds_per_step"] * steps / 86_400)
    assert time["chip_hours"] == pytest.approx(8 * 24 * time["days"])
    assert found["basis"].startswith("estimated")
    json.dumps(found)


def test_parameters_and_moments_are_those_of_the_state():
    for name in ("bert_tiny", "gpt2_tiny", "t5_tiny"):
        fit = made(name, "cpu:1").fit
        state = fit.program.abstract
        num_bytes = lambda tree: sum(leaf.size * 4 for leaf in jax.tree.leaves(tree))
        assert fit.memory["parameters"] == num_bytes(state.params)
        assert fit.memory["optimizer"] == num_bytes(state.opt_state)


def test_what_leaves_a_host_goes_by_its_slower_network():
    one, two = (plan.as_dict(made("gpt2_small", f"h100:{n}")) for n in (8, 16))
    assert [each["outer"] for each in two["collectives"]] == [True]
    assert two["roofline"]["network"] > 5 * one["roofline"]["network"]
    slices = plan.as_dict(made("gpt2_small", "2xv5e:4x4", mesh__preset="hybrid"))
    assert slices["topology"]["mesh"] == {"data": 2, "fsdp": 16}
    outer = {each["axes"]: each["outer"] for each in slices["collectives"]}
    assert outer == {("data",): True, ("fsdp",): False}


def test_what_does_not_fit_is_tried_in_other_ways():
    found = made("gpt2_xl", "v5e:2x2", train__remat="none", mesh__preset="data")
    assert not found.fit.fits
    assert found.found.fits
    assert found.way["mesh.preset"] == "fsdp"
    assert found.found.program.config.mesh.preset == "fsdp"
    tried = [line.split(":")[0] for line in found.tried]
    assert tried[:3] == ["as it is", "train.remat=dots", "train.remat=full"]
    assert all("does not fit" in line for line in found.tried[:-1])
    advice = plan.as_dict(found)["advice"][0]
    assert advice.startswith("it does not fit as it is; it does with --config.")
    again = made("gpt2_xl", "v5e:2x2", **{k.replace(".", "__"): v for k, v in found.way.items()})
    assert again.fit.fits


def test_remat_alone_is_enough_where_it_is():
    # The micro-batch is that of a larger chip.
    fields = {"train__micro_batch_size": 4096, "train__global_batch_size": 4096}
    found = made("gpt2_small", "h100:8", **fields | {"train__loss_chunk": 64})
    assert found.way in ({"train.remat": "dots"}, {"train.remat": "full"})


def test_what_fits_in_no_way_says_so():
    found = made("llama3_8b", "v5e:2x2")
    assert not found.found.fits
    assert found.way is None
    assert "more or larger devices" in plan.as_dict(found)["advice"][0]
    assert len(found.tried) > 3


def test_a_mesh_larger_than_the_topology_is_refused():
    with pytest.raises(UserError, match=r"fsdp 16 takes 16 devices and there are fewer: 8"):
        made("gpt2_small", "h100:8", mesh__fsdp=16)


def test_a_ledger_says_how_much_of_raw_text_is_kept(tmp_path):
    ledger = tmp_path / "ledger.json"
    ledger.write_text(json.dumps({"summary": {"bytes in": 400, "bytes kept": 50}}))
    assert raw_text.keep_rates(str(ledger)) == (0.125,)
    assert raw_text.keep_rates(None) == cost.KEEP_RATES
    asked = plan.Asked(keep=(0.125,), bytes_per_token=5)
    tokens = plan.as_dict(made("bert_tiny", "a100:1", asked))["tokens"]
    assert tokens["raw_text_bytes"] == [tokens["compute_optimal"] * 5 * 8]
    for content in ("{}", "no json", '{"summary": {"bytes in": 0, "bytes kept": 0}}'):
        ledger.write_text(content)
        with pytest.raises(UserError, match="is no ledger of a curation"):
            raw_text.keep_rates(str(ledger))
    with pytest.raises(UserError, match="is not there"):
        raw_text.keep_rates(str(tmp_path / "none.json"))


@pytest.mark.parametrize("name", ["bert_base", "llama3_8b", "t5_11b"])
def test_no_bound_of_a_roofline_is_nothing(name):
    found = made(name, "v5p:4x4x4")
    roofline = found.roofline()
    assert 0 < roofline.seconds < 100
    assert min(roofline.compute, roofline.memory, roofline.network) > 0
    full = flops.flops_per_row(found.fit.program.config.model, found.fit.program.row).full
    step = full * found.fit.program.config.train.global_batch_size
    again = 4 / 3 if found.fit.program.config.train.remat == "full" else 1
    assert roofline.compute <= again * step / (64 * 459e12)


def test_the_tool_prints_a_plan_and_writes_it(tmp_path):
    output = tmp_path / "plan.json"
    command = [sys.executable, "tools/plan.py", "--config=configs/bert_tiny.py"]
    command += ["--topology=h100:2", f"--output={output}", "--config.train.num_steps=7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "configs/bert_tiny.py on h100:2" in done.stdout
    assert "yes: " in done.stdout
    found = json.loads(output.read_text())
    keys = {"fits", "memory", "flops", "collectives", "roofline", "tokens", "advice", "time"}
    assert keys < set(found)
    assert found["config"] == "configs/bert_tiny.py"
    assert found["fields"]["train"]["num_steps"] == 7
    assert found["tokens"]["run"] == 7 * 128 * 32
