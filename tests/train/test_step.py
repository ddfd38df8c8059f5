import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config as config_lib
from lmjax import families
from lmjax import fields as fields_lib
from lmjax.batch import Ids
from lmjax.noise import RowNoise
from lmjax.train import loss, setup
from lmjax.train.state import add_tokens, total_tokens

VOCAB = 384
OBJECTIVES = {"gpt2": "clm", "bert": "mlm", "t5": "span_corruption"}


def make_config(family="gpt2", **overrides):
    fields = families.resolve({"family": family})["model"]
    return setup.resolve(
        fields_lib.replace(
            config_lib.Config(),
            {
                **{f"model.{name}": value for name, value in fields.items()},
                "family": family,
                "objective.name": OBJECTIVES[family],
                "model.vocab_size": VOCAB,
                "model.hidden_size": 32,
                "model.num_layers": 2,
                "data.seq_len": 16,
                "train.global_batch_size": 16,
                "train.micro_batch_size": 16,
                "train.num_steps": 10,
                "optimizer.learning_rate": 1e-2,
                # Adam divides even a vanishing gradient by itself and so shows its last bit as a
                # whole step; this large, the update is proportional to the gradient.
                "optimizer.epsilon": 1.0,
                **overrides,
            },
        )
    )


def make_batch(config, seed=0):
    """Rows of very different numbers of predictions, some none at all."""
    rng = np.random.default_rng(seed)
    objective = setup.objectives.make(config, Ids(num_ids=256, num_rows=VOCAB))
    rows, length = config.train.global_batch_size, objective.window_length
    tokens = rng.integers(5, 256, (rows, length)).astype(np.int32)
    documents = np.sort(rng.integers(0, 3, (rows, length)), axis=1)
    real = np.arange(length) < rng.integers(0, length + 1, (rows, 1))
    documents = np.where(real, documents, -1)
    index = np.arange(rows)
    return objective(np.where(real, tokens, 0), documents, RowNoise(0, index * 0, index))


def make_tables():
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(VOCAB), 2)
    sizes = rng.integers(0, 7, VOCAB)
    return {
        "unigram": np.log(probs[0]).astype(np.float32),
        "content_unigram": np.log(probs[1]).astype(np.float32),
        "bytes": sizes.astype(np.float32),
    }


def run(config, batches, devices=1):
    """Losses, final state on the host, last metrics."""
    program = setup.make_program(config, jax.devices()[:devices])
    with program.context():
        steps = setup.make_steps(program, make_tables())
        state, losses = program.init(), []
        for i, batch in enumerate(batches):
            state, metrics = steps(state, batch, fresh=i % 2 == 0)
            losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state), jax.device_get(metrics), steps


def max_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)))


@pytest.fixture(scope="module", params=OBJECTIVES)
def whole(request):
    config = make_config(request.param)
    batches = [make_batch(config, seed) for seed in range(3)]
    return config, batches, run(config, batches)


@pytest.mark.parametrize(
    ("micro", "devices"),
    [(8, 2), *(pytest.param(*apart, marks=pytest.mark.slow) for apart in ((2, 1), (16, 8)))],
)
def test_micro_batches_and_devices_change_nothing(whole, micro, devices):
    config, batches, (losses, state, metrics, _) = whole
    config = fields_lib.replace(config, {"train.micro_batch_size": micro})
    got_losses, got, got_metrics, _ = run(config, batches, devices)
    np.testing.assert_allclose(got_losses, losses, rtol=1e-5)
    assert max_difference(got.params, state.params) < 1e-7  # 1e-5 of the learning rate
    assert total_tokens(got.tokens) == total_tokens(state.tokens)
    for name, value in metrics["window"].items():
        np.testing.assert_allclose(got_metrics["window"][name], value, rtol=1e-5)


def test_nothing_is_compiled_twice(whole):
    steps = whole[2][3].train_step
    assert steps._fused._cache_size() == 1


def test_a_state_is_given_up_for_the_next():
    """Its memory is what the next one is written to."""
    config = make_config()
    program = setup.make_program(config, jax.devices()[:1])
    with program.context():
        state = program.init()
        steps = setup.make_steps(program, make_tables())
        steps(state, make_batch(config), fresh=True)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.opt_state)))


def test_the_step_is_gradient_descent_on_the_mean_over_predictions():
    config = make_config(
        **{
            "optimizer.clip_norm": None,
            "optimizer.weight_decay": 0.0,
            "optimizer.epsilon": 1e-8,
            "train.z_loss": 0.3,
        }
    )
    batch = make_batch(config)
    program = setup.make_program(config, jax.devices()[:1])
    with program.context():
        steps = setup.make_steps(program, make_tables())
        state = program.init()

        def plain_loss(params):
            logits = program.model.apply({"params": params}, batch)
            log_z = jnp.log(jnp.sum(jnp.exp(logits), axis=-1))
            chosen = jnp.sum(logits * jax.nn.one_hot(batch["targets"], VOCAB), axis=-1)
            terms = log_z - chosen + 0.3 * log_z**2
            return jnp.sum(terms * batch["weights"]) / jnp.sum(batch["weights"])

        grads = jax.jit(jax.grad(plain_loss))(state.params)
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)))
        before = jax.device_get(state.params)
        state, metrics = steps(state, batch, fresh=True)
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)
    # The first step of Adam moves every parameter by the rate, against its gradient's sign.
    moved = jax.tree.map(lambda a, b: np.asarray(a - b), state.params, before)
    for delta, grad in zip(jax.tree.leaves(moved), jax.tree.leaves(grads), strict=True):
        clear = np.abs(grad) > 1e-4
        rate = float(metrics["learning_rate"])
        np.testing.assert_allclose(delta[clear], -rate * np.sign(grad[clear]), rtol=1e-2)


def test_reported_sums_against_plain_numpy(whole):
    config, batches, _ = whole
    batch, tables = batches[0], make_tables()
    batch = batch | {"content_weights": batch["weights"] * (batch["targets"] % 2)}
    program = setup.make_program(config, jax.devices()[:1])
    with program.context():
        params = program.init().params
        logits = jax.jit(program.model.apply)({"params": params}, batch)
        _, sums = jax.jit(functools.partial(loss.sums, program.model))(params, batch, tables)
    logits = np.asarray(logits, np.float64)
    row = loss.summarise(jax.device_get(sums), exact_likelihood=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = -np.take_along_axis(log_p, batch["targets"][..., None], -1)[..., 0]
    weights, content, targets = batch["weights"], batch["content_weights"], batch["targets"]
    expected = {
        "loss": (nats * weights).sum() / weights.sum(),
        "content_loss": (nats * content).sum() / content.sum(),
        "unigram_loss": -(tables["unigram"][targets] * weights).sum() / weights.sum(),
        "content_unigram_loss": (
            -(tables["content_unigram"][targets] * content).sum() / content.sum()
        ),
        "accuracy": ((logits.argmax(-1) == targets) * weights).sum() / weights.sum(),
        "bits_per_byte": (
            (nats * weights).sum() / np.log(2) / tables["bytes"][targets][weights > 0].sum()
        ),
    }
    assert row == pytest.approx(expected, rel=1e-5)


def test_the_window_starts_anew_and_tokens_add_up(whole):
    _, batches, (losses, state, metrics, _) = whole
    # Steps 0 and 1 share a window, step 2 begins one.
    weight = batches[2]["weights"].sum()
    assert metrics["window"]["weight"] == weight
    assert metrics["window"]["nats"] / weight == pytest.approx(losses[2], rel=1e-6)
    fields = [name for name in batches[0] if name.endswith("segment_ids")]  # of both stacks
    real = sum((batch[name] > 0).sum() for batch in batches for name in fields)
    assert total_tokens(state.tokens) == real
    assert state.step == 3


def test_token_count_passes_32_bits():
    tokens = jnp.zeros((2,), jnp.uint32)
    for _ in range(5):
        tokens = add_tokens(tokens, jnp.int32(2**31 - 1))
    assert total_tokens(tokens) == 5 * (2**31 - 1)


def test_dropout_follows_seed_and_step_and_is_off_in_evaluation():
    config = make_config(
        **{"model.dropout": 0.5, "model.num_layers": 1, "optimizer.learning_rate": 1e-30}
    )
    batch = make_batch(config)
    program = setup.make_program(config, jax.devices()[:1])
    with program.context():
        steps, placed = setup.make_steps(program, make_tables()), program.place(batch)

        def two_steps():
            state, norms, nats = program.init(), [], []
            for _ in range(2):
                state, metrics = steps(state, batch, fresh=True)
                norms.append(float(metrics["grad_norm"]))
                nats.append(float(steps.eval_step(state.params, placed, loss.zeros())["nats"]))
            return norms, nats

        norms, nats = two_steps()
        assert norms[0] != norms[1]
        assert nats[0] == nats[1]
        assert two_steps() == (norms, nats)


@pytest.mark.parametrize(
    ("overrides", "devices", "message"),
    [
        ({"train.global_batch_size": 12, "train.micro_batch_size": "auto"}, 8, "global_batch_size"),
        ({"train.micro_batch_size": 4}, 8, "micro_batch_size=4"),
    ],
)
def test_batches_that_do_not_divide_over_the_devices(overrides, devices, message):
    with pytest.raises(setup.UserError, match=message):
        setup.make_program(make_config(**overrides), jax.devices()[:devices])


@pytest.mark.parametrize("family", OBJECTIVES)
def test_overfits_one_batch(family):
    config = make_config(family, **{"schedule.name": "constant", "optimizer.epsilon": 1e-8})
    losses, *_ = run(config, [make_batch(config)] * 80)
    assert losses[0] == pytest.approx(np.log(VOCAB), rel=0.15)
    assert losses[-1] < 0.2
