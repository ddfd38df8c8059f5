"""What is generated, against one token at a time without a cache; batches, samples, ends."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import families
from lmjax.config import MeshConfig
from lmjax.errors import UserError
from lmjax.infer.generate import Generator
from lmjax.infer.sampling import Sampling
from lmjax.model_config import ModelConfig
from lmjax.nn.model import Model
from lmjax.parallel import mesh as mesh_lib
from lmjax.parallel import rules
from lmjax.train import state

VOCAB, START, COUNT, LONGEST = 96, 2, 12, 40
_SMALL = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "head_dim": 8, "mlp_size": 32}
_SMALL |= {"tie_embeddings": False}  # else the last token is the likeliest next one
# Family -> fields; every kind of position and of keys is there.
KINDS = {
    "gpt2": ("gpt2", {"max_positions": LONGEST}),
    "bloom": ("bloom", {}),
    "llama": ("llama", {"num_kv_heads": 2, "window": 6, "global_every": 2}),
    "qwen3": ("llama", {"num_kv_heads": 1, "qk_norm": "head"}),
    "relative": ("gpt2", {"position": "relative", "max_positions": None}),
    "t5": ("t5", {}),
    "bart": ("bart", {"max_positions": LONGEST, "num_encoder_layers": 1}),
}
SLOW = ("qwen3", "relative", "bart")  # as good as the others
LENGTHS = [3, 16, 1, 9, 14, 2]  # of one padded length: shapes take long to compile


@functools.cache
def make_model(kind):
    """Model and parameters; drawn large, so that no two tokens are alike."""
    family, fields = KINDS[kind]
    model = Model(ModelConfig(**families.FAMILIES[family].BASE | _SMALL | fields), VOCAB)
    shapes = nn.unbox(state.named_params(model, one_row(model, np.arange(3), np.arange(3))))
    rng = np.random.default_rng(1)

    def drawn(path, leaf):
        noise = rng.normal(size=leaf.shape).astype("f")
        name = path[-1].key
        return 1 + 0.1 * noise if name == "scale" else noise * (0.1 if name == "bias" else 0.5)

    return model, jax.tree_util.tree_map_with_path(drawn, shapes)


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
        padded = np.array(ids + [5] * (LONGEST - len(ids)), np.int32)
        logits = _logits(model, params, one_row(model, padded, np.asarray(prompt)))
        ids.append(int(np.argmax(logits[0, len(ids) - 1])))
    return ids[-count:]


@functools.cache
def make(kind, count=COUNT, *, mesh=None, allow=None, **how):
    """(prompts, ...) -> what is generated; None: on one device."""
    model, params = make_model(kind)
    devices = jax.devices()[: 8 if mesh else 1]
    config = MeshConfig(**dict(mesh or ()))
    mesh = mesh_lib.make_mesh(config, devices)
    _, shardings = state.abstract_params(model, one_row(model, np.arange(3), np.arange(3)), mesh)
    two = model.config.architecture == "encoder_decoder"
    how = {"eos_id": None, "decoder_start_id": START if two else None} | how
    how["allowed"] = None if allow is None else np.isin(np.arange(VOCAB), allow)
    generator = Generator(model, rules.batch_sharding(mesh), max_new_tokens=count, **how)
    placed = jax.device_put(params, shardings)

    def run(prompts, params=None, **more):
        own = placed if params is None else jax.device_put(params, shardings)
        with mesh_lib.context(mesh, config):
            return generator(own, prompts, **more)

    run.generator = generator
    return run


def prompts(seed=0, lengths=LENGTHS):
    rng = np.random.default_rng(seed)
    return [rng.integers(5, VOCAB, n).astype(np.int32) for n in lengths]


def ids(found):
    return [one.ids.tolist() for one in found]


def slow(values, of=SLOW):
    return [pytest.param(v, marks=pytest.mark.slow) if v in of else v for v in values]


@pytest.mark.parametrize("kind", slow(KINDS))
def test_prompts_of_any_length_get_what_each_gets_alone(kind):
    given = prompts()
    found = make(kind)(given)
    assert {one.finish_reason for one in found} == {"length"}
    assert ids(found) == [greedy(kind, prompt, COUNT) for prompt in given]
    assert len({tuple(row) for row in ids(found)}) == len(given)


ALLOW = tuple(range(9, 70))
SAMPLED = Sampling(1.0, top_k=40, top_p=0.9)
MESHES = {
    "gpt2": (("fsdp", 2), ("tensor", 2)),
    "llama": (("preset", "fsdp_tensor_sequence"),),
    "t5": (("preset", "fsdp"),),
    "bart": (("preset", "fsdp_tensor_sequence"), ("data", 2), ("tensor", 4)),
}


@pytest.mark.parametrize("kind", slow(MESHES, ["llama", "t5", "bart"]))
def test_eight_devices_give_what_one_gives(kind):
    how = {"sampling": SAMPLED, "allow": ALLOW}
    one, eight = make(kind, **how), make(kind, **how, mesh=MESHES[kind])
    found = ids(one(prompts()))
    assert ids(eight(prompts())) == found
    assert len({tuple(row) for row in found}) == len(found)


@pytest.mark.parametrize("kind", slow(["gpt2", "bart"]))
def test_samples_depend_on_seed_and_number_alone(kind):
    run = make(kind, sampling=SAMPLED, allow=ALLOW)
    given, numbers = prompts(), [7, 1, 2**40 + 1, 3, 4, 5]
    together = ids(run(given, seed=3, numbers=numbers))
    assert ids(run(given, seed=3, numbers=numbers)) == together
    assert ids(run(given[::-1], seed=3, numbers=numbers[::-1])) == together[::-1]
    assert ids(run(given, seed=4, numbers=numbers)) != together
    assert ids(run(given, seed=3, numbers=[1, *numbers[1:]])) != together
    apart = make(kind, sampling=SAMPLED, allow=ALLOW, batch_size=2)
    assert ids(apart(given, seed=3, numbers=numbers)) == together
    first = apart([given[0]] * 2, seed=3, numbers=[1, 2**40 + 1])
    assert first[0].ids.tolist() != first[1].ids.tolist()
    assert {token for row in together for token in row} <= set(ALLOW)


def test_an_end_ends_a_row():
    free = ids(make("gpt2")(prompts()))
    eos = next(row[4] for row in free if row[4] not in row[:4])
    found = make("gpt2", eos_id=eos)(prompts())
    for one, whole in zip(found, free, strict=True):
        assert one.ids.tolist() == whole[: whole.index(eos) if eos in whole else COUNT]
        assert one.finish_reason == ("eos" if eos in whole else "length")
        assert one.ids.dtype == np.int32
    assert {one.finish_reason for one in found} == {"eos", "length"}


def test_a_stop_is_found_at_its_token(monkeypatch):
    monkeypatch.setattr("lmjax.infer.generate._BETWEEN_LOOKS", 3)
    free = ids(make("gpt2")(prompts()))
    ends = lambda ids: ids[-2:] == free[1][4:6]
    found = make("gpt2")(prompts(), stop=ends)
    for one, whole in zip(found, free, strict=True):
        at = next((n for n in range(1, COUNT + 1) if ends(whole[:n])), None)
        assert one.ids.tolist() == whole[:at]
        assert one.finish_reason == ("length" if at is None else "stop")
    assert found[1].finish_reason == "stop"
    seen = []
    make("gpt2")(prompts(), stop=lambda ids: seen.append(len(ids)) or len(ids) == 4)
    assert max(seen) == 4  # and then the batch was over


def test_other_parameters_and_stops_compile_nothing_anew():
    run = make("gpt2")
    first = ids(run(prompts()))
    compiled = run.generator._begin._cache_size(), run.generator._go_on._cache_size()
    moved = jax.tree.map(lambda leaf: -leaf, make_model("gpt2")[1])
    assert ids(run(prompts(1), moved, stop=lambda ids: len(ids) == 2, seed=5)) != first
    assert compiled == (run.generator._begin._cache_size(), run.generator._go_on._cache_size())
    assert compiled == (1, 1)


def test_a_diverged_model_is_named():
    broken = jax.tree.map(lambda leaf: leaf * np.float32("nan"), make_model("gpt2")[1])
    with pytest.raises(UserError, match="not finite: its training has diverged"):
        make("gpt2")(prompts(), broken)


def test_a_forced_first_token_is_read_and_not_returned():
    found = make("bart", 1, forced_first_id=7)(prompts())
    model, params = make_model("bart")
    for one, prompt in zip(found, prompts(), strict=True):
        padded = np.array([START, 7] + [5] * (LONGEST - 2), np.int32)
        logits = _logits(model, params, one_row(model, padded, prompt))
        assert one.ids.tolist() == [np.argmax(logits[0, 1])]


def test_batches():
    """Longest first, few shapes, fewer rows only where there are few prompts."""
    plan = lambda lengths, **how: list(make("gpt2", **how).generator._batches(lengths))
    assert plan([]) == []
    assert plan([3]) == [([0], 1, 16)]
    assert plan([3, 17, 5]) == [([1, 2, 0], 4, 32)]
    assert plan([3, 40, 5, 17, 2], batch_tokens=128) == [
        ([1], 1, 64),
        ([3, 2], 2, 32),
        ([0, 4], 4, 16),
    ]
    few = plan([5] * 9, batch_size=4)
    assert [(len(rows), num_rows) for rows, num_rows, _ in few] == [(4, 4), (4, 4), (1, 4)]
    assert plan([3] * 9, mesh=(("data", 8),))[0][1:] == (16, 16)
    told = []
    make("gpt2", 1, batch_size=4)(prompts(), progress=lambda *news: told.append(news))
    assert told == [(4, 6), (6, 6)]
    assert make("gpt2")([]) == []


@pytest.mark.parametrize(
    ("kind", "count", "length", "message"),
    [
        ("gpt2", 36, 6, "take 41 positions, the model has 40 .*; lower max_new_tokens to 35"),
        ("gpt2", 36, 41, r"has 40 \(config.model.max_positions\); shorten the prompt"),
        ("bart", 12, 41, "the prompt takes 41 positions, the model has 40"),
        ("bart", 41, 5, "take 41 positions, the model has 40 .*; lower max_new_tokens to 40$"),
        ("gpt2", 36, 0, "empty; give it one id"),
        ("gpt2", 0, 1, "max_new_tokens=0 asks for nothing"),
    ],
)
def test_what_there_is_no_room_for(kind, count, length, message):
    with pytest.raises(UserError, match=message):
        make(kind, count)(prompts(lengths=[length]))


def test_what_fits_exactly_is_taken():
    make("gpt2", 36).generator.check(np.arange(5))
    make("bart", 40).generator.check(np.arange(40))
    make("t5", 99).generator.check(np.arange(99))


def test_an_encoder_writes_nothing():
    encoder = Model(ModelConfig(**families.FAMILIES["bert"].BASE | _SMALL), VOCAB)
    with pytest.raises(UserError, match=r"is an encoder.*tools/fill_mask.py"):
        Generator(encoder, None, eos_id=1, max_new_tokens=1)
