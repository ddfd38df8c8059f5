"""Train from scratch or go on from a published model: what a ladder's fit says of a budget.

The size is the one of a list whose mean predicted loss is least when the whole budget is spent on
it, over all draws of the fit, as far as the text goes: it may be read four times, which is worth as
much as new text (Muennighoff et al. 2023), and no more. No model has more parameters in its blocks
than it reads tokens: the form knows nothing of models that learn their text by heart.

"Do not train from scratch" is said for one of two figures, the first that holds:

- the text, read four times, has less than a quarter of the tokens that the budget's best run wants;
- the loss at the budget is more than 0.1 nats above what it would be with as much text as wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax import flops
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.plan.ladder import MAX_PASSES, Text
from lmjax.plan.scaling import LEVEL, Fit
from lmjax.plan.variants import Published, Shape, Variant, block_params
from lmjax.train.console import count

TASKS = {
    "generate": "decoder",
    "classify": "encoder",
    "embed": "encoder",
    "tag": "encoder",
    "answer": "encoder",
    "summarise": "encoder-decoder",
    "translate": "encoder-decoder",
}
ENOUGH_TEXT = 0.25  # of the tokens that the budget's best run wants
MOST_LOST = 0.1  # nats, for want of text

_SHAPES = [
    (32, 2),
    (48, 2),
    (64, 2),
    (96, 3),
    (128, 4),
    (192, 4),
    (256, 4),
    (320, 5),
    (384, 6),
    (512, 8),
]
_SHAPES += [(640, 10), (768, 12), (1024, 16), (1280, 20), (1600, 28), (2048, 32), (2560, 36)]
_SHAPES += [(3072, 40), (4096, 48)]
_STEPS = 4000  # about as many as the recommended run has, batches permitting
_LEAST_BATCH, _MOST_BATCH = 2**10, 2**20  # tokens


@dataclass(frozen=True)
class Budget:
    """What there is to spend.

    Attributes:
      hours: on all devices.
      rate: FLOP/s that a run is taken to reach on all of them.
      devices: how many there are, for the batch to be divided over.
    """

    hours: float
    rate: float
    devices: int

    @property
    def flops(self) -> float:
        """In all."""
        return 3600 * self.hours * self.rate


@dataclass(frozen=True)
class Candidate:
    """A model that may be trained.

    Attributes:
      variant, shape: of it.
      vocab_size, seq_len: ids of its tokenizer, and tokens of a row.
      config: of a run of it.
    """

    variant: Variant
    shape: Shape
    vocab_size: int
    seq_len: int
    config: Config

    @property
    def params(self) -> int:
        """Of its blocks."""
        return block_params(self.config.model)

    @property
    def all_params(self) -> int:
        """With embeddings and head."""
        return sum(flops.num_params(self.config.model).values())

    @property
    def flops_per_token(self) -> float:
        """Of text, that training takes."""
        row = self.variant.lengths(self.seq_len)
        return flops.flops_per_row(self.config.model, row).full / self.seq_len

    def fields(self, tokens: float, devices: int) -> dict[str, Any]:
        """Nested fields of its run on so many tokens: the ladder's recipe in larger batches."""
        wanted = min(max(tokens / _STEPS, _LEAST_BATCH), _MOST_BATCH)
        rows = 2 ** round(math.log2(max(1, wanted / self.seq_len)))
        rows = devices * max(1, math.ceil(rows / devices))
        size = self.vocab_size
        return self.variant.fields(self.shape, round(tokens), size, self.seq_len, rows)


def candidates(variant: Variant) -> list[Candidate]:
    """Models to choose from, small ones first; the larger ones with more ids and longer rows."""
    found = []
    for width, layers in _SHAPES:
        shape = Shape(width, max(2, layers // (2 if variant.name == "encoder-decoder" else 1)))
        vocab_size = 4096 if width < 256 else 8192 if width < 512 else 32_768
        seq_len = 128 if width < 384 else 512 if width < 768 else 1024
        config = variant.resolved(variant.fields(shape, 10**6, vocab_size, seq_len), vocab_size)
        found.append(Candidate(variant, shape, vocab_size, seq_len, config))
    return found


@dataclass(frozen=True)
class Run:
    """A candidate trained for the whole of a budget, or until its text ends.

    Attributes:
      candidate: the model.
      tokens: of text that it reads.
      flops: that takes.
      loss: lower end, median and upper end of the predicted loss.
    """

    candidate: Candidate
    tokens: float
    flops: float
    loss: tuple[float, float, float]


@dataclass(frozen=True)
class Choice:
    """What is recommended.

    Attributes:
      train: whether to train from scratch.
      why: by which figure that was decided, in words.
      run: the best that the budget and the text allow.
      free: the best that the budget would allow with as much text as wanted.
      sizes: parameters of the blocks of `free`, by single draws: 90 % lie between these.
      text_share: tokens of the text, read four times, as a share of those of `free`.
      lost: nats by which `run` is above `free`, median over the draws.
      published: what to go on from; of `run`'s variant.
      passes: of it over the text, once in the budget.
    """

    train: bool
    why: str
    run: Run
    free: Run
    sizes: tuple[int, int]
    text_share: float
    lost: float
    published: Published
    passes: float


def choose(fit: Fit, variant: Variant, text: Text, budget: Budget) -> Choice:
    """What to do with a budget and a text.

    Args:
      fit: of the variant's ladder on the text.
      variant: of the model.
      text: of the ladder.
      budget: to spend.

    Raises:
      UserError: the budget is less than the smallest model of the ladder takes.
    """
    models = candidates(variant)
    models_M = np.array([model.params for model in models], float)
    affordable_M = np.array([budget.flops / model.flops_per_token for model in models])
    _check(affordable_M, fit, budget)
    there_M = np.minimum(affordable_M, MAX_PASSES * text.num_tokens)
    with_text, without_end = (losses(fit, models_M, each) for each in (there_M, affordable_M))
    best, best_free = (int(each.mean(axis=0).argmin()) for each in (with_text, without_end))
    run, free = (
        _run(models[i], tokens_M[i], predicted[:, i])
        for i, tokens_M, predicted in (
            (best, there_M, with_text),
            (best_free, affordable_M, without_end),
        )
    )
    ends = np.quantile(models_M[without_end.argmin(axis=1)], _ends(), method="nearest")
    lost = float(np.median(with_text[:, best] - without_end[:, best_free]))
    share = MAX_PASSES * text.num_tokens / free.tokens
    train, why = decide(share, lost, text, free)
    published, passes = go_on_from(variant.published, text, budget)
    sizes = (int(ends[0]), int(ends[1]))
    return Choice(train, why, run, free, sizes, share, lost, published, passes)


def losses(fit: Fit, params_M: np.ndarray, tokens_M: np.ndarray) -> np.ndarray:
    """Predicted losses [K, M], those of models beyond their tokens infinite; not the smallest."""
    return np.where(
        params_M <= np.maximum(tokens_M, params_M.min()), fit.losses(params_M, tokens_M), np.inf
    )


def _check(affordable_M: np.ndarray, fit: Fit, budget: Budget) -> None:
    if affordable_M.max() < fit.tokens / 4:
        raise UserError(
            f"--budget={budget.hours:g} hours are {budget.flops:.2g} FLOPs there, less than a "
            "small run of the ladder takes; give more hours or a larger --topology"
        )


def _ends() -> list[float]:
    return [(1 - LEVEL) / 2, (1 + LEVEL) / 2]


def _run(model: Candidate, tokens: float, predicted: np.ndarray) -> Run:
    low, high = np.quantile(predicted, _ends())
    loss = (float(low), float(np.median(predicted)), float(high))
    return Run(model, float(tokens), float(tokens * model.flops_per_token), loss)


def decide(share: float, lost: float, text: Text, free: Run) -> tuple[bool, str]:
    """Whether to train from scratch, and by which figure.

    Args:
      share: of the tokens of `free` that the text has, read four times.
      lost: nats, for want of text.
      text: that there is.
      free: the best run of the budget if there were more.
    """
    has = f"the text has {count(text.num_tokens)} tokens, {count(MAX_PASSES * text.num_tokens)} "
    has += f"when it is read {MAX_PASSES} times"
    wants = f"the budget's best run wants {count(free.tokens)}"
    if share < ENOUGH_TEXT:
        return (
            False,
            f"{has}, and {wants}: it has {_share(share)} of that, less than {_share(ENOUGH_TEXT)}",
        )
    if lost > MOST_LOST:
        return False, (
            f"for want of text the loss at the budget is {lost:.2f} nats above what the budget "
            f"could reach ({has}; {wants}), more than {MOST_LOST}"
        )
    if share < 1:
        return True, (
            f"{has}, {_share(share)} of what {wants.removeprefix('the ')}, which costs {lost:.2f} "
            "nats"
        )
    return True, f"{has}, and {wants}: there is enough of it"


def _share(share: float) -> str:
    return f"{100 * share:.2g} %"


def go_on_from(
    published: Sequence[Published], text: Text, budget: Budget
) -> tuple[Published, float]:
    """The largest published model that can read the text once in the budget, or the smallest.

    Returns:
      It, and how often it can.
    """
    passes = [budget.flops / (6 * each.params * text.num_tokens) for each in published]
    able = [i for i, times in enumerate(passes) if times >= 1]
    chosen = able[-1] if able else 0
    return published[chosen], passes[chosen]
