"""tools/bench.py as a user calls it, on the bundled text."""

import json
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run
import tool_run
from flax import linen as nn
from small_run import CORPUS

from lmjax import families, runner
from lmjax.batch import Ids
from lmjax.bench import ablation, training
from lmjax.bench import input as input_bench
from lmjax.bench.collators import SpanCollator
from lmjax.errors import UserError
from lmjax.model_config import ModelConfig
from lmjax.nn.model import Model
from lmjax.objectives.span_corruption import SpanCorruption


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Configs of three families; their stores are made by whoever comes first."""
    folder = tmp_path_factory.mktemp("bench")
    for family in small_run.OBJECTIVES:
        (folder / f"{family}.py").write_text(small_run.config(CORPUS, folder / "cache", family))
    return folder


def bench(root, what, family, *arguments):
    return tool_run.run(
        "bench",
        f"--what={what}",
        f"--config={root}/{family}.py",
        "--seconds=0.1",
        f"--output={root}/figures.json",
        "--config.data.seq_len=256",
        *arguments,
    )


def figures(root, *arguments):
    done = bench(root, *arguments)
    assert done.code == 0, done.err
    return json.loads((root / "figures.json").read_text()), done.out


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_input_figures_of_each_objective(root, family):
    fills = {}
    for packing in ("stream", "document", "pack"):
        found, table = figures(root, "input", family, f"--config.data.packing={packing}")
        assert found["packing"] == packing
        assert found["objective"] == small_run.OBJECTIVES[family]
        assert found["batch_size"] == 8
        assert found["seq_len"] == 256
        assert found["versions"].keys() >= {"python", "lmjax", "jax", "numpy"}
        for stage in ("read", "objective", "batch", "target"):
            assert found[f"{stage}_tokens_per_core_second"] > 1000
        assert f"packing={packing}" in table
        fills[packing] = found["fill"]
        assert all(0 < share <= 1 for share in found["fill"].values())
        assert ("enc_inputs" in found["fill"]) == (family == "t5")
        assert ("targets" in found["fill"]) == (family == "bert")
    assert fills["stream"]["read"] > 0.99
    assert fills["pack"]["read"] > max(0.95, fills["document"]["read"])


@pytest.mark.parametrize("packing", ["stream", "document", "pack"])
@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_every_token_of_the_text_counts_once(root, family, packing):
    request = runner.Request(f"{root}/{family}.py", None, {"data.packing": packing})
    _, batches, stores = runner.train_batches(request)
    (store,) = stores.train
    rows = np.arange(len(batches.sources[0]))
    halves = ({"info/window": half} for half in np.array_split(rows, 2))
    total = sum(input_bench.raw_tokens(batches, half) for half in halves)
    if packing == "stream":  # the first token of a decoder's text is never predicted
        assert total == store.num_tokens - (family == "gpt2")
    else:  # an encoder's rows have end tokens of their own
        assert total == store.num_tokens - store.num_documents * (family == "bert")


@pytest.mark.slow
def test_packings_are_timed_side_by_side(root):
    small = ["--config.model.num_layers=1", "--config.data.seq_len=64"]
    found, table = figures(root, "packing", "bert", *small)
    packings = found["packings"]
    assert list(packings) == ["stream", "document", "pack"]
    assert packings["pack"]["fill"]["read"] > packings["document"]["fill"]["read"]
    assert packings["pack"]["rows_per_epoch"] < packings["document"]["rows_per_epoch"]
    for name, rates in packings.items():
        assert name in table
        for kind in ("step", "input"):
            assert rates[kind]["rounds"] >= 1
            assert rates[kind]["trained_tokens_per_second"] > 100
            # No more real tokens than a step has places.
            most = rates[kind]["steps_per_second"] * 8 * 64
            assert rates[kind]["trained_tokens_per_second"] < 1.3 * most
    assert packings["document"]["step"]["ratio_to_document"] == 1


@pytest.mark.slow
def test_checks_are_timed_with_and_without(root):
    small = ["--config.model.num_layers=1", "--config.data.seq_len=64"]
    found, table = figures(root, "checks", "bert", *small)
    assert found["rounds"] >= 1
    assert found["num_steps"] == 5  # checkpoint.every
    assert 0 < found["watchdog"] < 1e-3 < found["step"]
    saves = (found["fingerprint"] + found["sums"]) / found["num_steps"]
    share = (found["guard"] + found["watchdog"] + saves) / found["step"]
    assert found["share"] == pytest.approx(share)
    assert "fingerprints of arrays, every 5 steps" in table


@pytest.mark.slow
def test_saves_are_timed_beside_steps(root):
    small = ["--config.model.num_layers=1", "--config.data.seq_len=64"]
    found, table = figures(root, "checkpoint", "bert", *small)
    assert found["num_steps"] == 5  # checkpoint.every
    assert 0 < found["stands_still"] < found["landed"]
    assert found["num_bytes"] > 100_000
    expected = found["extra"] / (5 * found["step"] + found["extra"])
    assert found["share"] == pytest.approx(expected)
    assert "share of a run with a save every 5 steps" in table


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("bert", ["both ways, all"]),
        ("t5", ["decoder to encoder", "encoder, both ways, all", "decoder, causal, all"]),
    ],
)
def test_attention_is_held_against_float64(root, family, layers):
    small = ["--config.data.seq_len=64"]
    found, table = figures(root, "attention", family, *small)
    assert list(found["layers"]) == layers
    for name, layer in found["layers"].items():
        assert list(layer["kernels"]) == ["xla", "blockwise"]
        for kernel in layer["kernels"].values():
            assert kernel["error"] < 1e-6
            assert 1e-9 < kernel["gradient_error"] < 1e-5
            assert 0 < kernel["forward"] < 10
        assert name in table


@pytest.mark.slow
def test_switches_are_timed_side_by_side(root):
    small = ["--config.model.num_layers=2", "--config.data.seq_len=64"]
    found, table = figures(root, "ablation", "bert", *small)
    rows = found["rows"]
    assert rows["as it is"]["ratio"] == 1
    expected = {"layers unrolled", "dropout 0.1, rbg", "remat: full", "logits of every position"}
    assert expected | {"cross-entropy in chunks of 8"} <= rows.keys()
    as_it_is = {"dropout 0", "attention: blockwise", "layers scanned", "cross-entropy whole"}
    assert not as_it_is & rows.keys()
    for name, row in rows.items():
        assert row["seconds"] > 0
        assert row["rounds"] >= 1
        assert name in table
    # Without what is kept for the way back.
    assert rows["remat: full"]["memory"] < rows["as it is"]["memory"]
    assert rows["logits of every position"]["memory"] > rows["as it is"]["memory"]


def test_a_frozen_bias_has_no_gradient_and_all_else_has():
    fields = families.resolve({"family": "t5"})["model"]
    small = {"hidden_size": 16, "num_layers": 1, "mlp_size": 32}
    model = Model(ModelConfig(**fields | small | {"vocab_size": 64}), 64)
    ids = jnp.ones((1, 6), jnp.int32)
    names = ("inputs", "segment_ids", "positions")
    batch = {f"{side}{name}": ids for side in ("", "enc_") for name in names}
    params = nn.meta.unbox(model.init(jax.random.key(0), batch)["params"])

    def gradients(model):
        logits = lambda params: model.apply({"params": params}, batch)
        return jax.grad(lambda params: jnp.sin(logits(params)).sum())(params)

    frozen, free = gradients(ablation._FrozenBias(model)), gradients(model)
    for name in free:
        if name in ("encoder_bias", "stack_bias"):
            assert np.abs(free[name]["table"]).max() > 0
            free[name] = jax.tree.map(jnp.zeros_like, free[name])
    jax.tree.map(np.testing.assert_array_equal, frozen, free)


@pytest.mark.slow
def test_the_first_step_is_timed_from_the_start_of_the_process(root):
    found, table = figures(root, "startup", "gpt2", "--config.model.num_layers=1")
    assert found["rounds"] == 1
    assert 1 < found["second"] < found["first"] < 120
    assert "everything in the compilation cache" in table


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_pytorch_does_the_same_work(root, family, monkeypatch):
    monkeypatch.setattr(training, "PEERS", {"eager": "transformers, eager"})  # compiling takes long
    found, table = figures(root, "train", family, "--against=hf", "--config.data.seq_len=64")
    ours, theirs = found["rates"]["lmjax"], found["rates"]["eager"]
    assert ours["ratio"] == 1
    assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4)
    assert theirs["ratio"] > 0
    assert ours["memory"] > 100_000
    assert 0 < ours["matmul_share"] < 1
    assert "transformers, eager" in table


def test_a_training_without_a_peer(root):
    found, table = figures(root, "train", "gpt2", "--config.data.seq_len=64")
    (rate,) = found["rates"].values()
    assert rate["tokens"] == pytest.approx(8 * 64 / rate["seconds"], rel=0.2)
    assert found["failed"] == {}
    assert "lmjax" in table
    written = (root / "figures.md").read_text()
    assert "| lmjax | " in written
    assert f"jax {found['versions']['jax']}" in written


def test_a_peer_that_does_other_work_is_refused():
    other = mock.Mock(loss=3.0)
    with pytest.raises(UserError, match="so it does other work"):
        training._check_losses({"lmjax": mock.Mock(loss=6.0), "eager": other}, "float32")


def test_the_span_collator_hides_what_ours_does():
    ids = Ids(num_ids=600, num_rows=768)
    objective = SpanCorruption(seq_len=64, ids=ids)
    rng = np.random.default_rng(0)
    text = rng.integers(5, 600, (40, objective.window_length))
    collator = SpanCollator(0.15, 3.0, ids, rng)
    batch = collator([{"input_ids": row} for row in text])
    spec = objective.spec(40)
    assert batch["input_ids"].shape == spec["enc_inputs"][0]
    assert batch["labels"].shape == batch["decoder_input_ids"].shape == spec["targets"][0]
    assert (batch["decoder_input_ids"][:, 0] == ids.decoder_start).all()
    assert (batch["decoder_input_ids"][:, 1:] == batch["labels"][:, :-1]).all()
    for row, shown, hidden in zip(text, batch["input_ids"], batch["labels"], strict=True):
        assert shown[-1] == hidden[-1] == ids.eos
        spans, answer = {}, None
        for token in hidden[:-1].tolist():
            answer = spans.setdefault(token, []) if token > 600 else answer
            answer += [token] if token < 600 else []
        assert list(spans) == [767 - number for number in range(len(spans))]
        whole = [
            token
            for shown_one in shown[:-1].tolist()
            for token in spans.get(shown_one, [shown_one])
        ]
        assert whole == row.tolist()


def test_span_masks_differ_and_hide_the_asked_share():
    collator = SpanCollator(0.3, 2.0, Ids(600, 768), np.random.default_rng(0))
    masks = [collator.hidden(100) for _ in range(200)]
    assert {int(mask.sum()) for mask in masks} == {30}
    assert {int(np.diff(mask.astype(int), prepend=0).clip(0).sum()) for mask in masks} == {15}
    assert len({mask.tobytes() for mask in masks}) == 200
    assert not any(mask[0] or not mask[-1] for mask in masks)


def test_mistakes_are_one_line(root):
    for what, family, words in (
        ("input", "gpt2", ["no collator for config.objective.name='clm'", "mlm", "leave"]),
        ("input", "bert", ["package transformers is missing", "pip install 'lmjax[parity]'"]),
        ("packing", "bert", ["--against has no meaning for --what=packing", "leave it out"]),
    ):
        with mock.patch.dict(sys.modules, {"transformers": None}):
            done = bench(root, what, family, "--against=hf")
        assert done.code == 1
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert all(word in done.err for word in words), done.err


@pytest.mark.parity
@pytest.mark.parametrize(("family", "target"), [("bert", 1.0), ("t5", 5.0)])
def test_collators_of_transformers_in_the_same_run(root, family, target):
    pytest.importorskip("transformers")
    found, table = figures(root, "input", family, "--against=hf")
    against = found["against"]
    assert against["tokens_per_core_second"] > 1000
    assert against["ratio"] > 0.1
    assert against["objective_ratio"] > 0.1
    assert against["target"] == target
    assert against["name"] in table
    assert "transformers" in found["versions"]


def test_a_plan_beside_the_run(root):
    found, table = figures(root, "plan", "gpt2", "--mfu=0.5")
    assert found["parameters"][0] == found["parameters"][1] > 0
    assert found["optimizer"][0] == found["optimizer"][1] > 0
    assert found["memory"][0] > found["parameters"][0] + found["optimizer"][0]
    assert found["estimated"] > 0
    predicted, measured = found["seconds"]
    reached = predicted * 0.5 / measured
    assert found["calibrated"] == pytest.approx(reached)
    assert found["share"] == 0.5
    assert f"{found['calibrated']:.1%} were reached" in " ".join(table.split())
