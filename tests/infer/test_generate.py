"""What is generated, against choosing one token at a time without a cache; batches, samples, ends."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import families
from lmjax.config import MeshConfig, ModelConfig
from lmjax.errors import UserError
from lmjax.infer.generate import Generator
from lmjax.infer.sampling import Sampling
from lmjax.nn.model import Model
from lmjax.parallel import mesh as mesh_lib
from lmjax.parallel import rules
from lmjax.train import state

VOCAB, START = 96, 2
_SMALL = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "head_dim": 8, "mlp_size": 32}
_SMALL |= {"tie_embeddings": False}  # else the last token is the likeliest next one
# Family -> fields; every kind of position and of keys is there.
KINDS = {
    "gpt2": ("gpt2", {"max_positions": 64}),
    "bloom": ("bloom", {}),
    "grouped": ("llama", {"num_kv_heads": 2}),
    "local": ("llama", {"window": 6, "global_every": 2, "num_layers": 4}),
    "relative": ("gpt2", {"position": "relative", "max_positions": None, "num_layers": 3}),
    "t5": ("t5", {}),
    "bart": ("bart", {"max_positions": 64, "num_encoder_layers": 1}),
}
DECODERS = ["gpt2", "bloom", "grouped", "local", "relative"]
LENGTHS = [3, 21, 1, 9, 17, 2]


@functools.cache
def make_model(kind):
    """Model and parameters; drawn large, so that no two tokens are alike."""
    family, fields = KINDS[kind]
    model = Model(ModelConfig(**families.FAMILIES[family].BASE | _SMALL | fields), VOCAB)
    shapes = nn.unbox(state.named_params(model, one_row(model, np.arange(3), np.arange(3))))
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape).astype("f"), shapes)


def one_row(model, inputs, source=None):
    def sequence(ids, prefix=""):
        fields = {"inputs": ids, "segment_ids": np.ones_like(ids), "positions": np.arange(len(ids))}
        return {f"{prefix}{k}": jnp.asarray(v[None], jnp.int32) for k, v in fields.items()}

    two = model.config.architecture == "encoder_decoder"
    return sequence(inputs) | (sequence(source, "enc_") if two else {})


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, batch):
    return model.apply({"params": params}, batch)


def greedy(kind, prompt, count):
    """The likeliest next ids, each from a whole row of its own, padded behind."""
    model, params = make_model(kind)
    two = model.config.architecture == "encoder_decoder"
    ids = [START] if two else list(prompt)
    for _ in range(count):
        padded = np.array(ids + [5] * (48 - len(ids)), np.int32)
        logits = _logits(model, params, one_row(model, padded, np.asarray(prompt)))
        ids.append(int(np.argmax(logits[0, len(ids) - 1])))
    return ids[-count:]


def make(kind, count=12, *, devices=1, mesh=None, **how):
    """(prompts, ...) -> what is generated."""
    model, params = make_model(kind)
    mesh = mesh_lib.make_mesh(MeshConfig(**mesh or {}), jax.devices()[:devices])
    _, shardings = state.abstract_params(model, one_row(model, np.arange(3), np.arange(3)), mesh)
    two = model.config.architecture == "encoder_decoder"
    how = {"eos_id": None, "decoder_start_id": START if two else None} | how
    generator = Generator(model, rules.batch_sharding(mesh), max_new_tokens=count, **how)
    placed = jax.device_put(params, shardings)

    def run(prompts, **more):
        with mesh_lib.context(mesh):
            return generator(placed, prompts, **more)

    run.generator = generator
    return run


def prompts(seed=0, lengths=LENGTHS):
    rng = np.random.default_rng(seed)
    return [rng.integers(5, VOCAB, n).astype(np.int32) for n in lengths]


def ids(found):
    return [one.ids.tolist() for one in found]


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_any_length_get_what_each_gets_alone(kind):
    given = prompts()
    found = make(kind)(given)
    assert {one.finish_reason for one in found} == {"length"}
    assert ids(found) == [greedy(kind, prompt, 12) for prompt in given]
    assert len({tuple(row) for row in ids(found)}) > 1


@pytest.mark.parametrize(
    ("kind", "mesh"),
    [("gpt2", {"fsdp": 2, "tensor": 2}), ("grouped", {"tensor": 2}), ("t5", {"preset": "fsdp"})],
)
def test_eight_devices_give_what_one_gives(kind, mesh):
    for sampling in (Sampling(), Sampling(1.0)):
        one, eight = (
            make(kind, sampling=sampling, **where) for where in ({}, {"devices": 8, "mesh": mesh})
        )
        assert ids(eight(prompts())) == ids(one(prompts()))


@pytest.mark.parametrize("kind", ["bloom", "bart"])
def test_samples_depend_on_seed_and_number_alone(kind):
    run = make(kind, sampling=Sampling(1.0, top_p=0.9))
    given, numbers = prompts(), [7, 1, 2**40 + 1, 3, 4, 5]
    together = ids(run(given, seed=3, numbers=numbers))
    assert ids(run(given, seed=3, numbers=numbers)) == together
    assert ids(run(given[::-1], seed=3, numbers=numbers[::-1])) == together[::-1]
    assert ids(run([given[2]], seed=3, numbers=[2**40 + 1])) == [together[2]]
    assert ids(run(given, seed=4, numbers=numbers)) != together
    twice = ids(run([given[0]] * 2, seed=3, numbers=[1, 2**40 + 1]))
    assert twice[0] != twice[1]
    small = make(kind, sampling=Sampling(1.0, top_p=0.9), batch_size=2)
    assert ids(small(given, seed=3, numbers=numbers)) == together


def test_an_end_ends_one_row_and_all_ended_rows_end_the_batch():
    given = prompts()
    free = ids(make("gpt2", 20)(given))
    eos = free[0][4]
    run = make("gpt2", 20, eos_id=eos)
    found = run(given)
    for one, whole in zip(found, free, strict=True):
        cut = whole.index(eos) if eos in whole else 20
        assert one.ids.tolist() == whole[:cut]
        assert one.finish_reason == ("eos" if eos in whole else "length")
    assert found[0].ids.dtype == np.int32
    assert ids(run(given[:1])) == [free[0][:cut]] if (cut := free[0].index(eos)) else True


def test_other_parameters_compile_nothing_anew():
    model, params = make_model("gpt2")
    run = make("gpt2", 6)
    generator, given = run.generator, prompts(lengths=[4, 5, 6])
    mesh = mesh_lib.make_mesh(MeshConfig(), jax.devices()[:1])
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    with mesh_lib.context(mesh):
        first = ids(generator(jax.device_put(params, where), given))
        sizes = generator._begin._cache_size(), generator._go_on._cache_size()
        moved = jax.device_put(jax.tree.map(lambda leaf: -leaf, params), where)
        assert ids(generator(moved, given, stop=lambda ids: len(ids) == 2)) != first
        assert (generator._begin._cache_size(), generator._go_on._cache_size()) == sizes == (1, 1)


def test_a_stop_is_found_at_its_token():
    given = prompts()
    free = ids(make("gpt2", 40)(given))
    assert len(free[0]) == 40
    wanted = free[3][30:32]
    ends = lambda ids: ids[-2:] == wanted
    found = make("gpt2", 40)(given, stop=ends)
    for one, whole in zip(found, free, strict=True):
        at = next((n for n in range(1, 41) if ends(whole[:n])), None)
        assert one.ids.tolist() == whole[:at]
        assert one.finish_reason == ("length" if at is None else "stop")
    assert found[3].finish_reason == "stop"


def test_only_what_is_allowed():
    allowed = np.zeros(VOCAB, bool)
    allowed[[9, 11, 13]] = True
    for sampling in (Sampling(), Sampling(5.0)):
        found = ids(make("bloom", allowed=allowed, sampling=sampling)(prompts()))
        assert {token for row in found for token in row} <= {9, 11, 13}


def test_a_forced_first_token_is_read_and_not_returned():
    given = prompts()
    found = make("bart", 6, forced_first_id=7)(given)
    model, params = make_model("bart")
    for one, prompt in zip(found, given, strict=True):
        logits = _logits(model, params, one_row(model, np.array([START, 7]), prompt))
        assert one.ids[0] == np.argmax(logits[0, 1])


def test_progress_and_nothing_to_do():
    told = []
    run = make("gpt2", 3, batch_size=4)
    assert run([]) == []
    run(prompts(), progress=lambda done, of: told.append((done, of)))
    assert told == [(4, 6), (6, 6)]


def test_what_there_is_no_room_for():
    run = make("gpt2", 60)
    assert len(run(prompts(lengths=[5]))[0].ids) == 60
    with pytest.raises(UserError, match="take 65 positions, the model has 64 .*lower max_new_toke"):
        run(prompts(lengths=[6]))
    with pytest.raises(UserError, match="has 64 .*; shorten the prompt"):
        run(prompts(lengths=[65]))
    with pytest.raises(UserError, match="prompt takes 65 positions, the model has 64"):
        make("bart")(prompts(lengths=[65]))
    with pytest.raises(UserError, match="empty"):
        run([np.zeros(0, np.int32)])
    with pytest.raises(UserError, match="max_new_tokens=0"):
        make("gpt2", 0)
    encoder = Model(ModelConfig(**families.FAMILIES["bert"].BASE | _SMALL), VOCAB)
    with pytest.raises(UserError, match=r"is an encoder.*tools/fill_mask.py"):
        Generator(encoder, None, eos_id=1, max_new_tokens=1)


def test_a_diverged_model_is_named():
    model, params = make_model("gpt2")
    run = make("gpt2", 3)
    mesh = mesh_lib.make_mesh(MeshConfig(), jax.devices()[:1])
    broken = jax.tree.map(lambda leaf: leaf * np.float32("nan"), params)
    with mesh_lib.context(mesh), pytest.raises(UserError, match="diverged"):
        run.generator(broken, prompts())
