"""Collectives of compiled programs: XLA's ways to write them, and those of each mesh."""

import jax
import numpy as np
import pytest

from lmjax import config as config_lib
from lmjax import families, flops
from lmjax import fields as fields_lib
from lmjax.plan import collectives
from lmjax.plan.collectives import Collective
from lmjax.train import setup

AXES = {"data": 2, "fsdp": 4, "tensor": 1}


def program(*lines, loop=()):
    """HLO of a program with some instructions, and some within a loop of three rounds."""
    return "\n".join(
        [
            "HloModule jit_step, is_scheduled=true",
            "%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {",
            *(f"  %inner.{i} = {line}" for i, line in enumerate(loop)),
            "}",
            "",
            "%condition (p: (s32[], f32[8])) -> pred[] {",
            "  %bound = s32[]{:T(128)} constant(3)",
            "  ROOT %lt = pred[] compare(%i, %bound), direction=LT",
            "}",
            "",
            "ENTRY %main (x: f32[8], /*index=1*/y: f32[8]) -> f32[8] {",
            "  %loop = (s32[], f32[8]) while(%t), condition=%condition, body=%body",
            *(f"  %outer.{i} = {line}" for i, line in enumerate(lines)),
            "}",
        ]
    )


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", ("fsdp",)),
        ("{{0,4},{1,5},{2,6},{3,7}}", ("data",)),
        ("[2,4]<=[8]", ("fsdp",)),
        ("[4,2]<=[2,4]T(1,0)", ("data",)),
        ("[1,8]<=[8]", ("data", "fsdp")),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", ("fsdp",)),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", ("data",)),
        ("mesh['a'=2,'b'=2,'c'=2] {'a','c'}", ("data", "fsdp")),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", ("fsdp",)),
        ("mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'b','c'}", ("data",)),
        ("{}", ("data", "fsdp")),
    ],
)
def test_groups_say_which_axes_they_go_over(groups, axes):
    line = f"f32[16]{{0}} all-reduce(%x), channel_id=1, replica_groups={groups}, to_apply=%add"
    (found,) = collectives.of_program(program(line), AXES)
    assert (found.kind, found.axes, found.count, found.bytes) == ("all-reduce", axes, 1, 64)
    members = np.prod([AXES[axis] for axis in axes]) if len(found.axes) < 2 else None
    if members:
        assert found.received == 2 * 64 * (members - 1) / members


def test_groups_in_another_form_are_no_guess():
    line = "f32[16]{0} all-reduce(%x), channel_id=1, replica_groups=torus(8), to_apply=%add"
    with pytest.raises(ValueError, match=r"not known: .*torus"):
        collectives.of_program(program(line), AXES)


def test_sizes_and_what_each_device_receives():
    group = "replica_groups={{0,1,2,3},{4,5,6,7}}"
    lines = {
        "all-gather": f"bf16[16,4]{{1,0}} all-gather(%x), channel_id=1, {group}, dimensions={{0}}",
        "reduce-scatter": f"f32[4]{{0}} reduce-scatter(%x), channel_id=2, {group}",
        "all-to-all": f"(f32[2]{{0}}, f32[2]{{0}}) all-to-all(%x, %y), channel_id=3, {group}",
        "collective-permute": "(f32[8], f32[8], u32[], u32[]) collective-permute-start(%x), "
        "channel_id=4, source_target_pairs={{0,1},{1,0}}",
    }
    found = {c.kind: c for c in collectives.of_program(program(*lines.values()), AXES)}
    assert {kind: (c.bytes, c.received) for kind, c in found.items()} == {
        "all-gather": (128, 96),
        "reduce-scatter": (64, 48),
        "all-to-all": (16, 12),
        "collective-permute": (32, 32),
    }
    assert {c.axes for c in found.values()} == {("fsdp",)}


def test_the_start_of_an_asynchronous_one_has_its_operands_too():
    group = "replica_groups=[2,4]<=[8]"
    one = f"(f32[2], f32[8]) all-gather-start(%x), channel_id=1, {group}, dimensions={{0}}"
    two = f"((f32[2], f32[1]), (f32[8], f32[4])) all-gather-start(%x, %y), channel_id=2, {group}"
    done = "f32[8] all-gather-done(%s)"
    (found,) = collectives.of_program(program(one, two, done), AXES)
    assert (found.count, found.bytes) == (2, 32 + 48)


def test_a_loop_counts_as_often_as_it_runs():
    line = "f32[16]{0} all-reduce(%x), channel_id=7, replica_groups={{0,4},{1,5},{2,6},{3,7}}"
    (found,) = collectives.of_program(program(loop=(line,)), AXES)
    assert (found.count, found.bytes) == (3, 3 * 64)
    unsigned = program(loop=(line,)).replace("s32[]{:T(128)} constant", "u32[]{:T(128)} constant")
    assert collectives.of_program(unsigned, AXES)[0].count == 3
    told = program(loop=(line,)).replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}'
    )
    assert collectives.of_program(told, AXES)[0].count == 5
    with pytest.raises(ValueError, match="without a number of rounds"):
        collectives.of_program(program(loop=(line,)).replace("constant(3)", "copy(%n)"), AXES)


def test_one_spread_over_several_computations_counts_where_it_begins():
    line = "f32[16] all-gather(%x), channel_id=7, replica_groups=[2,4]<=[8], {chain_id=0}"
    parts = program("f32[16] fusion(%x), kind=kCustom, calls=%begin", loop=(line,))
    begin = ["%begin (x: f32[4]) -> f32[16] {", f"  %a = {line}"]
    begin += ['  %b = f32[16] custom-call(%a), custom_call_target="AsyncCollectiveStart"', "}", ""]
    (found,) = collectives.of_program("\n".join(begin) + parts, AXES)
    assert (found.count, found.bytes) == (1, 64)


def test_one_that_leaves_a_host_is_told_apart():
    line = "f32[16]{0} all-reduce(%x), channel_id=1, replica_groups={{0,4},{1,5},{2,6},{3,7}}"
    (near,) = collectives.of_program(program(line), AXES, [0] * 8)
    (far,) = collectives.of_program(program(line), AXES, [0] * 4 + [1] * 4)
    assert (near.outer, far.outer) == (False, True)


FAMILIES = {"gpt2": "clm", "bert": "mlm", "t5": "span_corruption"}


def compiled(family, **fields):
    """A step on 8 CPU devices: its program, and the collectives of its HLO."""
    model = families.resolve({"family": family})["model"]
    model |= {"hidden_size": 64, "num_layers": 3, "num_heads": 8, "head_dim": 8, "mlp_size": 256}
    config = fields_lib.replace(
        config_lib.Config(),
        {f"model.{name}": value for name, value in model.items()}
        | {
            "family": family,
            "objective.name": FAMILIES[family],
            "tokenizer.vocab_size": 640,
            "data.seq_len": 32,
            "data.packing": "stream" if family == "gpt2" else "pack",
            "train.global_batch_size": 16,
            "train.micro_batch_size": 16,
        }
        | fields,
    )
    made = setup.make_program(setup.resolve(config), jax.devices()[:8])
    size = made.config.model.vocab_size
    tables = dict.fromkeys(("unigram", "content_unigram", "bytes"), np.zeros(size, np.float32))
    with made.context():
        step = setup.make_steps(made, tables).train_step
        hlo = step.lower(made.abstract, made.batch_spec()).compile().as_text()
    return made, collectives.of_program(hlo, dict(made.mesh.shape))


def over(found: list[Collective], axis):
    """Bytes by kind, of what goes over an axis."""
    sums = {}
    for each in found:
        if axis in each.axes:
            sums[each.kind] = sums.get(each.kind, 0) + each.bytes
    return sums


def assert_gradients_are_summed(sums, whole):
    """Once each, give or take a tied table that has several uses; loss and norms are trifles."""
    reduced = sums.get("all-reduce", 0) + sums.get("reduce-scatter", 0)
    assert 0.95 * whole < reduced < 1.8 * whole


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_data_sums_the_gradients_and_nothing_else(family):
    made, found = compiled(family)
    whole = 4 * sum(flops.num_params(made.config.model).values())
    assert {each.kind for each in found} == {"all-reduce"}
    assert_gradients_are_summed(over(found, "data"), whole)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_fsdp_gathers_the_parameters_and_sums_the_gradients(family):
    made, found = compiled(family, **{"mesh.preset": "fsdp"})
    whole = 4 * sum(flops.num_params(made.config.model).values())
    sums = over(found, "fsdp")
    # On the way forward and, unless XLA keeps some, on the way back.
    assert 0.9 * whole < sums["all-gather"] < 2.5 * whole
    assert_gradients_are_summed(sums, whole)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_tensor_sums_activations_alone(family):
    made, found = compiled(family, **{"mesh.preset": "tensor"})
    row, model = made.row, made.config.model
    per_sum = 4 * 16 * model.hidden_size
    sums_of_layer = 3 if row.source else 2
    least = 2 * sums_of_layer * model.num_layers * per_sum * row.target  # forward, and back
    least += 2 * 2 * model.encoder_layers * per_sum * row.source * bool(row.source)
    sums = over(found, "tensor")
    assert least <= sums["all-reduce"]
    logits = 4 * 16 * model.vocab_size * row.predicted
    assert max(each.bytes / each.count for each in found) < max(logits, 20 * per_sum * row.tokens)
    assert not over(found, "data")
    assert not over(found, "fsdp")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_sequence_split_over_tensor_is_gathered_and_scattered(family):
    fields = {"mesh.preset": "fsdp_tensor_sequence", "mesh.tensor": 2}
    made, found = compiled(family, **fields)
    whole = 4 * sum(flops.num_params(made.config.model).values()) / 2
    along = over(found, "fsdp")
    assert 0.9 * whole < along["all-gather"] < 3 * whole
    assert_gradients_are_summed(along, whole)
    _, together = compiled(family, **{"mesh.preset": "fsdp", "mesh.tensor": 2})
    gathered = lambda found: over(found, "tensor").get("all-gather", 0)
    assert gathered(found) > gathered(together)  # where activations are whole, none need be


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_hybrid_sums_a_part_of_the_gradients_over_data(family):
    made, found = compiled(family, **{"mesh.preset": "hybrid", "mesh.data": 2})
    assert dict(made.mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    whole = 4 * sum(flops.num_params(made.config.model).values())
    between = [each for each in found if each.axes == ("data",)]
    assert {each.kind for each in between} <= {"all-reduce", "reduce-scatter"}
    # What crosses the slow network is no more than a device's part, but for what XLA sums at once.
    assert sum(each.bytes for each in between) < 0.6 * whole
    assert over(found, "fsdp")["all-gather"] > 0.9 * whole
    assert not any(each.kind == "all-gather" and "data" in each.axes for each in found)
