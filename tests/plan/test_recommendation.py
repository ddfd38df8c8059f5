"""What is recommended, for what budget and text: a table, from fits of known forms."""

import itertools

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.plan import choose, decision, scaling
from lmjax.plan.choose import Budget
from lmjax.plan.ladder import Text
from lmjax.plan.variants import VARIANTS

SIZES = np.array([57e3, 150e3, 336e3, 793e3])
GPUS = 8 * 989e12 * 0.4


def fit_of(alpha=0.34, beta=0.32):
    params, tokens = (grid.ravel() for grid in np.meshgrid(SIZES, [1e6, 1.4e6, 2e6]))
    noise = 0.005 * np.random.default_rng(0).standard_normal(12)
    losses = 1.8 + 0.9 * (params / 3e5) ** -alpha + 0.7 * (tokens / 1.4e6) ** -beta + noise
    return scaling.fit(scaling.Points(params, tokens, losses))


@pytest.fixture(scope="module")
def fit():
    return fit_of()


def text_of(num_tokens):
    return Text("my_text", "store", int(num_tokens), int(3.4 * num_tokens), 90_000, 1000)


# tokens of the text, hours, FLOP/s, devices -> train?, words of the reason
TABLE = [
    (1e12, 1, 1e11, 1, True, "there is enough of it"),
    (7e6, 1, 1e11, 1, True, "there is enough of it"),
    (1e12, 24, GPUS, 8, True, "there is enough of it"),
    (7e6, 24, GPUS, 8, False, "less than 25 %"),
    (1e9, 24, GPUS, 8, False, "less than 25 %"),
    (2e10, 24, GPUS, 8, True, "which costs"),
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("tokens", "hours", "rate", "devices", "train", "reason"), TABLE)
def test_a_budget_and_a_text(fit, variant, tokens, hours, rate, devices, train, reason):
    budget = Budget(hours, rate, devices)
    found = choose.choose(fit, VARIANTS[variant], text_of(tokens), budget)
    assert found.train == train, found.why
    assert reason in found.why
    assert found.run.flops <= 1.001 * budget.flops
    assert found.run.tokens <= 4 * tokens
    assert found.run.candidate.params <= found.run.tokens
    assert found.free.flops == pytest.approx(budget.flops)
    assert found.free.loss[1] <= found.run.loss[1]
    assert found.run.loss[0] < found.run.loss[1] < found.run.loss[2]
    assert found.sizes[0] <= found.free.candidate.params <= found.sizes[1]
    assert found.text_share == pytest.approx(4 * tokens / found.free.tokens)


def test_a_larger_budget_buys_a_larger_model_and_more_tokens(fit):
    runs = [
        choose.choose(fit, VARIANTS["decoder"], text_of(1e13), Budget(hours, GPUS, 8)).run
        for hours in (0.1, 1, 10, 100)
    ]
    for smaller, larger in itertools.pairwise(runs):
        assert larger.candidate.params > smaller.candidate.params
        assert larger.tokens > smaller.tokens
        assert larger.loss[1] < smaller.loss[1]


def test_where_size_matters_more_the_model_is_larger():
    sizes = [
        choose.choose(fit_of(a, b), VARIANTS["decoder"], text_of(1e13), Budget(24, GPUS, 8)).run
        for a, b in ((0.2, 0.6), (0.6, 0.2))
    ]
    assert sizes[0].candidate.params > 3 * sizes[1].candidate.params


@pytest.mark.parametrize(
    ("share", "lost", "train", "words"),
    [
        (0.2, 0.0, False, "it has 20 % of that, less than 25 %"),
        (0.3, 0.2, False, "0.20 nats above what the budget could reach"),
        (0.3, 0.05, True, "which costs 0.05 nats"),
        (2.0, 0.0, True, "there is enough of it"),
    ],
)
def test_the_figure_that_decides_is_named(fit, share, lost, train, words):
    free = choose.choose(fit, VARIANTS["decoder"], text_of(1e12), Budget(1, GPUS, 8)).free
    decided, why = choose.decide(share, lost, text_of(1e6), free)
    assert decided == train
    assert words in why


def test_the_published_model_is_the_largest_that_reads_the_text_once():
    published = VARIANTS["decoder"].published
    text = text_of(1e8)
    names = []
    for hours in (1e-3, 0.2, 0.5, 100):
        model, passes = choose.go_on_from(published, text, Budget(hours, 2e14, 1))
        names.append(model.name)
        assert passes == pytest.approx(3600 * hours * 2e14 / (6 * model.params * 1e8))
    assert names == [published[0].name, *[each.name for each in published]]


def test_a_budget_below_the_ladder_is_refused(fit):
    with pytest.raises(UserError, match=r"less than a small run .* takes; give more hours"):
        choose.choose(fit, VARIANTS["decoder"], text_of(1e9), Budget(1e-4, 1e10, 1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_candidates_grow_and_divide(variant):
    models = choose.candidates(VARIANTS[variant])
    sizes = [model.params for model in models]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1000 * sizes[0]
    for model in models:
        train = model.fields(1e9, 6)["train"]
        assert train["global_batch_size"] % 6 == 0
        tokens = train["num_steps"] * train["global_batch_size"] * model.seq_len
        assert tokens == pytest.approx(1e9, rel=0.01)


@pytest.mark.parametrize(
    ("task", "names", "expected"),
    [
        (None, None, ("decoder",)),
        ("generate", None, ("decoder",)),
        ("classify", None, ("encoder",)),
        ("embed", ["decoder"], ("encoder", "decoder")),
        ("translate", ["decoder", "encoder-decoder"], ("encoder-decoder", "decoder")),
        (None, ["encoder-decoder", "encoder"], ("encoder-decoder", "encoder")),
    ],
)
def test_the_task_says_the_variant(task, names, expected):
    assert decision.variants_of(task, names) == expected
