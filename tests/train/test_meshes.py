"""One recipe, any mesh: the same batches, the same curve, and a resume on other devices."""

import jax
import numpy as np
import pytest

from lmjax import config as config_lib
from lmjax import families, flops
from lmjax import fields as fields_lib
from lmjax.optim.optimizer import OPTIMIZERS
from lmjax.train import data as data_lib
from lmjax.train import loss, setup
from lmjax.train.checkpoint import Checkpoints

OBJECTIVES = {"gpt2": "clm", "bert": "mlm", "t5": "span_corruption"}
MESHES = {
    "data": ({}, 8),
    "fsdp": ({"preset": "fsdp"}, 8),
    "tensor": ({"preset": "tensor"}, 8),
    "two": ({}, 2),
    "fsdp of two": ({"preset": "fsdp"}, 2),
    "tensor of two": ({"preset": "tensor"}, 2),
    "data x fsdp": ({"fsdp": 4}, 8),
    "data x fsdp x tensor": ({"fsdp": 2, "tensor": 2}, 8),
    "sequence": ({"preset": "fsdp_tensor_sequence"}, 8),
    "hybrid": ({"preset": "hybrid", "data": 2}, 8),
}
# Of the other variants: what differs is compiling time.
SOME = ["fsdp", "data x fsdp x tensor", "sequence"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    words = np.array(
        ["the", "a", "of", "whale", "sea", "ship", "and", "in", "white", "great", "old", "man"]
    )
    lines = (" ".join(rng.choice(words, 30)) for _ in range(300))
    (folder / "text.txt").write_text("\n".join(lines))
    return folder


def make_config(text, family, **overrides):
    fields = families.resolve({"family": family})["model"]
    width = {"hidden_size": 64, "num_layers": 2, "num_heads": 8, "head_dim": 8, "mlp_size": 128}
    return fields_lib.replace(
        config_lib.Config(),
        {
            **{f"model.{name}": value for name, value in (fields | width).items()},
            "family": family,
            "objective.name": OBJECTIVES[family],
            "tokenizer.vocab_size": 320,
            "data.path": str(text / "text.txt"),
            "data.text_split": "line",
            "data.eval_fraction": 0.1,
            "data.cache_dir": str(text / "cache"),
            "data.seq_len": 16,
            "data.packing": "stream" if family == "gpt2" else "pack",
            "train.global_batch_size": 16,
            "train.num_steps": 40,
            "schedule.decay_steps": 40,
            "optimizer.learning_rate": 2e-3,
            **overrides,
        },
    )


class Run:
    """A run on some of the devices."""

    def __init__(self, config, mesh=None, devices=1, micro=16):
        fields = {f"mesh.{name}": value for name, value in (mesh or {}).items()}
        config = fields_lib.replace(config, {**fields, "train.micro_batch_size": micro})
        stores = data_lib.open_stores(config)
        config = setup.resolve(config, stores.tokenizer.config["requested_vocab_size"])
        ids = setup.make_ids(config, stores.tokenizer)
        self.program = setup.make_program(config, jax.devices()[:devices], ids)
        data = data_lib.open_data(
            config, stores, self.program.objective, self.program.eval_objective
        )
        self.batches = data.train_batches(self.program)
        with self.program.context():
            self.steps, self.state = setup.make_steps(self.program, data.tables), None

    def train(self, first, last):
        """Losses of steps first .. last - 1, and the bytes that the devices were given."""
        losses, given = [], []
        with self.program.context():
            self.state = self.program.init() if self.state is None else self.state
            for step in range(first, last):
                batch = self.batches(step)
                micro = self.steps.micro_batches(batch)
                given.append(
                    {k: b"".join(np.asarray(m[k]).tobytes() for m in micro) for k in micro[0]}
                )
                self.state, metrics = self.steps(self.state, batch, fresh=True)
                losses.append(float(metrics["loss"]))
        return np.array(losses), given


def assert_same_curve(config, mesh, devices, plain):
    losses, given = Run(config, mesh, devices).train(0, 30)
    assert given == plain[1]
    np.testing.assert_allclose(losses[0], plain[0][0], rtol=1e-6)
    np.testing.assert_allclose(losses, plain[0], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "meshes"),
    [("gpt2", list(MESHES)[:5]), ("gpt2", list(MESHES)[5:]), ("bert", SOME), ("t5", SOME)],
)
def test_every_mesh_has_the_same_batches_and_curve(family, meshes, text):
    config = make_config(text, family)
    plain = Run(config).train(0, 30)
    assert plain[0][-1] < plain[0][0] - 0.3
    for name in meshes:
        assert_same_curve(config, *MESHES[name], plain)


def gradients(run):
    """Of the first batch's loss, by path; and the lengths of its rows."""
    program, tables = run.program, ("unigram", "content_unigram", "bytes")
    zeros = dict.fromkeys(tables, np.zeros(program.model.vocab_size, np.float32))
    with program.context():
        (batch,) = run.steps.micro_batches(run.batches(0))
        of_loss = jax.grad(lambda params: loss.sums(program.model, params, batch, zeros)[0])
        found = jax.device_get(jax.jit(of_loss)(program.init().params))
    by_path = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(found)}
    return by_path, {batch[name].shape[1] for name in batch if name.endswith("inputs")}


@pytest.mark.slow
@pytest.mark.parametrize("family", OBJECTIVES)
def test_gradients_split_along_the_sequence_are_the_whole_ones(family, text):
    config = make_config(text, family, **{"data.seq_len": 32})
    whole, _ = gradients(Run(config))
    split, lengths = gradients(Run(config, {"preset": "fsdp_tensor_sequence"}, 8))
    assert all(length % 2 == 0 for length in lengths)
    for path, leaf in whole.items():
        if path.endswith("['key']['bias']"):  # moves all scores of a query alike: nothing but noise
            continue
        np.testing.assert_allclose(split[path], leaf, rtol=0, atol=2e-6 * np.abs(leaf).max())


@pytest.mark.parametrize(
    ("family", "optimizer"),
    [("gpt2", name) for name in OPTIMIZERS] + [("bert", "adamw"), ("t5", "adafactor")],
)
def test_fsdp_leaves_an_eighth_on_each_device(family, optimizer, text):
    wide = {"model.hidden_size": 256, "model.head_dim": 32, "model.mlp_size": 1024}
    fields = {"mesh.preset": "fsdp", "optimizer.name": optimizer}
    config = make_config(text, family, **wide, **fields)
    program = setup.make_program(setup.resolve(config), jax.devices()[:8])
    with program.context():
        state = program.init()
    held, whole = np.zeros(8), 0
    for leaf in jax.tree.leaves((state.params, state.opt_state)):
        whole += leaf.nbytes
        for shard in leaf.addressable_shards:
            held[shard.device.id] += shard.data.nbytes
    assert held.max() <= whole / 8 * 1.05
    parts = flops.memory(program.config, program.row, 1, flops.Computing(4), accumulates=False)
    # The estimate leaves out what is small: Adafactor's moments are sums over a side or two.
    assert parts["parameters"] + parts["optimizer"] == pytest.approx(whole, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh",
    [
        {"preset": "fsdp"},
        {"preset": "tensor"},
        {"preset": "fsdp_tensor_sequence"},
        {"preset": "fsdp_tensor_sequence", "tensor": 8},
    ],
    ids=str,
)
def test_memory_on_a_mesh_is_near_xlas(mesh, text):
    fields = {"model.hidden_size": 256, "model.head_dim": 32, "model.mlp_size": 1024}
    fields |= {"model.num_layers": 4, "data.seq_len": 256, "model.vocab_size": 4096}
    program = Run(make_config(text, "gpt2", **fields), mesh, 8).program
    tables = dict.fromkeys(("unigram", "content_unigram", "bytes"), np.zeros(4096, np.float32))
    with program.context():
        step = setup.make_steps(program, tables).train_step
        compiled = step.lower(program.abstract, program.batch_spec()).compile()
    stats = compiled.memory_analysis()
    peak = stats.argument_size_in_bytes + stats.temp_size_in_bytes  # results take their place
    parts = flops.memory(
        program.config,
        program.row,
        program.rows_per_device,
        program.computing,
        accumulates=False,
        chunk=program.loss_chunk,
    )
    assert 0.7 < sum(parts.values()) / peak < 1.3


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [{"fsdp": 2, "tensor": 2}, {"preset": "fsdp_tensor_sequence"}])
def test_muon_trains_alike_on_a_mesh(mesh, text):
    config = make_config(text, "gpt2", **{"optimizer.name": "muon"})
    losses, _ = Run(config).train(0, 5)
    assert losses[-1] < losses[0]
    split, _ = Run(config, mesh, 8).train(0, 5)
    np.testing.assert_allclose(split, losses, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_a_loss_by_chunks_is_the_plain_one_on_a_mesh(family, text):
    config = make_config(text, family)
    losses, _ = Run(config).train(0, 5)
    by_chunks = make_config(text, family, **{"train.loss_chunk": 3, "train.z_loss": 0.0})
    mesh = {"preset": "fsdp_tensor_sequence", "data": 2}
    split, _ = Run(by_chunks, mesh, 8).train(0, 5)
    np.testing.assert_allclose(split, losses, rtol=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_with_other_devices_and_micro_batches(text, tmp_path):
    config = make_config(text, "bert")
    losses, given = Run(config, micro=2).train(0, 40)
    mine, batches, checkpoints = [], [], Checkpoints(tmp_path / "checkpoints", keep=1)
    phases = [({}, 1, 2), ({"preset": "fsdp"}, 8, 16), ({"preset": "tensor"}, 2, 4), ({}, 1, 16)]
    for phase, (mesh, devices, micro) in enumerate(phases):
        run = Run(config, mesh, devices, micro)
        if phase:
            program = run.program
            run.state = checkpoints.restore(10 * phase, program.abstract, program.shardings)
        part, part_batches = run.train(10 * phase, 10 * phase + 10)
        mine.extend(part)
        batches.extend(part_batches)
        checkpoints.save(10 * phase + 10, run.state, {})
    checkpoints.close()
    assert batches == given
    np.testing.assert_allclose(mine, losses, rtol=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.num_heads": 6, "mesh.tensor": 4}, r"num_heads.* 6 does not divide by 4"),
        ({"model.hidden_size": 36, "mesh.preset": "fsdp"}, r"width .*: 36 does not divide by 8"),
        ({"train.global_batch_size": 12}, r"global_batch_size=12 .* 8 parts"),
        ({"mesh.fsdp": 16}, r"takes 16 devices and there are fewer: 8"),
    ],
)
def test_what_does_not_divide_is_said_in_numbers(fields, message, text):
    config = setup.resolve(make_config(text, "gpt2", **fields))
    with pytest.raises(setup.UserError, match=message):
        setup.make_program(config, jax.devices()[:8])
