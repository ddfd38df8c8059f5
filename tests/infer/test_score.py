"""Scores of the three variants against one line at a time; what is refused of a line."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import families
from lmjax.config import MeshConfig
from lmjax.data.tokenizer import IdsTokenizer
from lmjax.errors import UserError
from lmjax.infer import score
from lmjax.infer.examples import Framing
from lmjax.infer.score import Scorer
from lmjax.model_config import ModelConfig
from lmjax.nn.model import Model
from lmjax.parallel import mesh as mesh_lib
from lmjax.parallel import rules
from lmjax.train import state

VOCAB, LONGEST, MASK, SPECIAL, START = 96, 40, 4, (0, 1, 2, 3), 0
_SMALL = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "head_dim": 8, "mlp_size": 32}
LENGTHS = [3, 20, 40, 20, 3, 40, 20, 20, 20, 3]


@functools.cache
def make_model(family):
    """Model and parameters; drawn large, so that no two tokens are alike."""
    base = families.FAMILIES[family].BASE
    longest = {} if base.get("max_positions", 1) is None else {"max_positions": LONGEST}
    model = Model(ModelConfig(**base | _SMALL | longest), VOCAB)
    batch = _one_row(model, np.arange(3), np.arange(3))
    shapes = nn.unbox(state.named_params(model, batch))
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape).astype("f"), shapes)


def _one_row(model, inputs, source):
    def sequence(ids, prefix=""):
        fields = {"inputs": ids, "segment_ids": np.ones_like(ids), "positions": np.arange(len(ids))}
        return {f"{prefix}{k}": jnp.asarray(v[None], jnp.int32) for k, v in fields.items()}

    two = model.config.architecture == "encoder_decoder"
    return sequence(inputs) | (sequence(source, "enc_") if two else {})


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, batch):
    return model.apply({"params": params}, batch)


def logprobs(family, inputs, source=None):
    """log p of every token at every position of one row, float64 [T, V]."""
    model, params = make_model(family)
    logits_TV = np.asarray(_logits(model, params, _one_row(model, inputs, source))[0], np.float64)
    return logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))


def make_scorer(family, *, devices=1, mesh=None, batch_tokens=128):
    model, params = make_model(family)
    config = MeshConfig(**mesh or {})
    mesh = mesh_lib.make_mesh(config, jax.devices()[:devices])
    batch = _one_row(model, np.arange(3), np.arange(3))
    _, shardings = state.abstract_params(model, batch, mesh)
    scorer = Scorer(
        model,
        jax.device_put(params, shardings),
        rules.batch_sharding(mesh),
        batch_tokens=batch_tokens,
    )

    def run(examples, *args):
        with mesh_lib.context(mesh, config):
            return scorer(examples, *args)

    return run


@functools.cache
def on_one_device(family):
    """Scores of `examples`, and what was told on the way to them."""
    told = []
    return make_scorer(family)(examples(family)[0], lambda *news: told.append(news)), told


def lines(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(5, VOCAB, n).astype(np.int32) for n in LENGTHS]


@functools.cache
def examples(family):
    """The examples of `lines`, and what each should come to."""
    if family == "gpt2":
        given = [np.append(ids, 7).astype(np.int32) for ids in lines()]
        made = [score.left_to_right(ids) for ids in given]
        wanted = [logprobs(family, i[:-1])[np.arange(len(i) - 1), i[1:]].sum() for i in given]
    elif family == "bert":
        given = lines()
        for ids in given:
            ids[:1], ids[-1:], ids[5:6] = 3, 1, MASK
        made = [score.masked_in_turn(ids, MASK, SPECIAL) for ids in given]
        wanted = [sum(_masked(ids, at) for at in np.flatnonzero(ids > MASK)) for ids in given]
    else:
        sources = lines(1)
        made = [score.from_source(*pair, START) for pair in zip(sources, lines(), strict=True)]
        wanted = [
            logprobs(family, e.inputs, e.source)[np.arange(len(e.targets)), e.targets].sum()
            for e in made
        ]
    return made, np.array(wanted)


def _masked(ids, at):
    shown = ids.copy()
    shown[at] = MASK
    return logprobs("bert", shown)[at, ids[at]]


def assert_close(scores, wanted):
    found = np.array([s.logprob for s in scores])
    counts = np.array([max(1, s.num_tokens) for s in scores])
    np.testing.assert_allclose(found / counts, wanted / counts, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_scores_are_those_of_one_line_at_a_time(family):
    made, wanted = examples(family)
    scores, told = on_one_device(family)
    assert_close(scores, wanted)
    assert [s.num_tokens for s in scores] == [len(e.targets) for e in made]
    total = sum(len(e.targets) for e in made)
    assert told == sorted(told)
    assert told[-1] == (total, total)


def test_what_a_pseudo_log_likelihood_counts():
    ids = np.array([3, 10, MASK, 11, 1], np.int32)
    example = score.masked_in_turn(ids, MASK, SPECIAL)
    assert example.masked.tolist() == [1, 3]
    assert example.targets.tolist() == [10, 11]


def test_padding_and_neighbours_change_nothing():
    made, together = examples("gpt2")[0][:2], on_one_device("gpt2")[0][:2]
    apart = make_scorer("gpt2", batch_tokens=1)
    assert_close([apart([example])[0] for example in made], [s.logprob for s in together])


@pytest.mark.parametrize(
    ("family", "mesh"),
    [("gpt2", {"fsdp": 2, "tensor": 2}), ("bert", {}), ("t5", {"preset": "fsdp"})],
)
def test_eight_devices_give_what_one_gives(family, mesh):
    made, _ = examples(family)
    eight = make_scorer(family, devices=8, mesh=mesh)(made)
    assert_close(eight, [s.logprob for s in on_one_device(family)[0]])


def test_nothing_to_score_is_zero():
    empty = np.zeros(0, np.int32)
    for example in (
        score.left_to_right(empty),
        score.left_to_right(np.array([9], np.int32)),
        score.masked_in_turn(np.array([3, 1], np.int32), MASK, SPECIAL),
    ):
        assert make_scorer("gpt2")([example]) == [(0.0, 0)]
    assert make_scorer("t5")([score.from_source(np.array([9]), empty, START)]) == [(0.0, 0)]
    assert make_scorer("gpt2")([]) == []


def framing(family, **special):
    model, _ = make_model(family)
    return Framing(model.config, VOCAB, IdsTokenizer(VOCAB, special), ((), ()), START)


def test_ids_are_taken_as_they_are():
    example = framing("gpt2", bos=0, eos=2)({"token_ids": [0, 9, 8, 2]})
    assert (example.inputs.tolist(), example.targets.tolist()) == ([0, 9, 8], [9, 8, 2])
    example = framing("t5")({"source_ids": [7, 1], "target_ids": [9, 8, 1]})
    assert example.source.tolist() == [7, 1]
    assert (example.inputs.tolist(), example.targets.tolist()) == ([START, 9, 8], [9, 8, 1])
    frame = framing("bert", mask=5, eos=1)
    assert frame({"token_ids": [5, 6, 1]}).masked.tolist() == [1]
    assert frame({"token_ids": [5, 6, 1], "mask_id": 6}).masked.tolist() == []
    assert frame({"token_ids": [5, 6, 1], "mask_id": 7}).mask_id == 7


@pytest.mark.parametrize(
    ("family", "record", "message"),
    [
        ("gpt2", {"txt": "a"}, r"no field text; a line for this decoder has text or token_ids"),
        ("gpt2", {"text": "a", "token_ids": [5]}, r"both text and token_ids"),
        ("gpt2", {"text": "a"}, r"imported without its tokenizer.* token_ids"),
        ("gpt2", {"text": 5}, r"text is 5, not text"),
        ("gpt2", {"text": "\ud800"}, r"surrogate"),
        ("gpt2", {"token_ids": "5 6"}, r"token_ids is '5 6', not a list"),
        ("gpt2", {"token_ids": [5, 6.0]}, r"token_ids\[1\] is 6.0, not an integer"),
        ("gpt2", {"token_ids": [True]}, r"token_ids\[0\] is True, not an integer"),
        ("gpt2", {"token_ids": [5, -1]}, r"token_ids\[1\]=-1 is outside the vocabulary of 96"),
        ("gpt2", {"token_ids": [96]}, r"=96 is outside"),
        ("gpt2", {"token_ids": [5] * 42}, r"takes 41 positions, the model has 40 .*max_positions"),
        ("bert", {"token_ids": [5] * 41, "mask_id": 4}, r"takes 41 positions"),
        ("bert", {"token_ids": [5]}, r"no mask_id"),
        ("bert", {"token_ids": [5], "mask_id": "4"}, r"mask_id\[0\] is '4', not an integer"),
        ("bert", {"token_ids": [5], "mask_id": 99}, r"=99 is outside the vocabulary"),
        ("t5", {"source": "a"}, r"no field target; .* encoder-decoder has source and target or"),
        ("t5", {"source": "a", "target_ids": [5]}, r"both source and target_ids"),
        ("t5", {"target_ids": [5]}, r"no field source_ids"),
        ("t5", {"source_ids": [], "target_ids": [5]}, r"source_ids is empty"),
        ("t5", {"source_ids": [5], "target_ids": [96]}, r"target_ids\[0\]=96"),
    ],
)
def test_what_is_refused_of_a_line(family, record, message):
    with pytest.raises(UserError, match=message) as caught:
        framing(family)(record)
    assert "\n" not in str(caught.value)


def test_what_fits_the_position_table_is_taken():
    assert framing("gpt2")({"token_ids": [5] * 41}).lengths == (0, 40)
    assert framing("bert")({"token_ids": [5] * 40, "mask_id": 4}).lengths == (0, 40)
    assert framing("t5")({"source_ids": [5] * 99, "target_ids": [5] * 99}).lengths == (99, 99)
