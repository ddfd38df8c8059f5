"""Training steps compiled for TPUs that are not there, with fused attention. Needs libtpu."""

import os

import numpy as np
import pytest
from jax.experimental import topologies

from lmjax import families
from lmjax import fields as fields_lib
from lmjax.config import MeshConfig
from lmjax.parallel.mesh import make_mesh
from lmjax.train import setup

libtpu = pytest.importorskip("libtpu")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

VARIANTS = {
    "encoder": ("bert", "mlm", 1, {}),
    "decoder": ("gpt2", "clm", 4, {"mesh.preset": "fsdp"}),
    "encoder-decoder": ("t5", "span_corruption", 4, {"mesh.preset": "tensor"}),
}
TOPOLOGIES = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2")
# Each variant for each generation, by a mesh of all devices or one alone; and what has attention of
# its own, once.
STEPS = {
    f"{variant}, {topology}": (topology, *VARIANTS[variant])
    for variant in VARIANTS
    for topology in TOPOLOGIES
} | {
    "encoder with windows": ("v6e:2x2", "modernbert", "mlm", 1, {"model.window": 64}),
    "decoder along the sequence": (
        "v6e:2x2",
        "gpt2",
        "clm",
        4,
        {"mesh.preset": "fsdp_tensor_sequence"},
    ),
    "decoder with ALiBi": ("v5e:2x2", "bloom", "clm", 1, {}),
    "decoder with grouped heads": ("v5e:2x2", "llama", "clm", 1, {"model.num_kv_heads": 1}),
}
SMALL = {"hidden_size": 256, "num_layers": 2, "num_heads": 4, "head_dim": 64, "mlp_size": 512}


@pytest.fixture(scope="module", autouse=True)
def alone():
    """No questions to a cloud about what machine this is."""
    before = dict(os.environ)
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("name", STEPS)
def test_the_step_compiles_with_fused_attention(name):
    topology, family, objective, num_devices, changes = STEPS[name]
    model = families.resolve({"family": family})["model"] | SMALL
    config = fields_lib.from_dict(
        {
            "family": family,
            "model": model | {"dropout": 0.0},
            "objective": {"name": objective},
            "tokenizer": {"vocab_size": 1024},
            "data": {"seq_len": 256},
            "train": {"global_batch_size": 4, "micro_batch_size": 4, "loss_chunk": None},
        }
    )
    config = setup.resolve(fields_lib.replace(config, changes))
    devices = list(topologies.get_topology_desc(topology, "tpu").devices)[:num_devices]
    program = setup.make_program(config, devices)
    assert program.model.how.kernel == "splash"
    assert program.model.dtype == "bfloat16"
    nothing = np.zeros(config.model.vocab_size, np.float32)
    tables = dict.fromkeys(("unigram", "content_unigram", "bytes"), nothing)
    with program.context():
        step = setup.make_steps(program, tables).train_step
        batch = program.batch_spec()
        lowered = step.lower(program.abstract, batch)
        assert lowered.as_text().count("tpu_custom_call") >= 3  # forward, and two on the way back
        stats = lowered.compile().memory_analysis()
    assert stats.generated_code_size_in_bytes > 0
    # Temporaries of so small a step may all be in a core's own memory.
    assert stats.alias_size_in_bytes > 0.9 * stats.argument_size_in_bytes  # state in place of state


def test_two_slices_meet_on_the_outermost_axis_alone():
    devices = topologies.get_topology_desc("v5e:2x4", "tpu", num_slices=2).devices
    mesh = make_mesh(MeshConfig(preset="hybrid", tensor=2), devices)
    assert mesh.devices.shape == (2, 4, 2)
    assert [{chip.slice_index for chip in part.flat} for part in mesh.devices] == [{0}, {1}]
