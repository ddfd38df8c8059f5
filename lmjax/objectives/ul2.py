"""UL2's mixture of denoisers, each with a mode token in front.

Tay et al. 2022 (UL2), table 1: seven denoisers, as likely as one another. Regular ones are T5's
span corruption, extreme ones hide half of the text or long spans of it, the sequential one is a
prefix LM that writes the last quarter.

    R  (mean span 3, 15 %), (8, 15 %)
    S  prefix LM, 25 %
    X  (3, 50 %), (8, 50 %), (64, 15 %), (64, 50 %)

The mode tokens are the three ids that follow the sentinels of span corruption, R, S, X in order;
with a tokenizer that has sentinels of its own, its last three.
"""

from __future__ import annotations

import dataclasses

from lmjax.batch import Ids
from lmjax.config import Config
from lmjax.objectives import span_corruption
from lmjax.objectives.description import (
    AFTER,
    BEFORE,
    FILLING,
    Description,
    Gap,
    Prompt,
    percent,
)
from lmjax.objectives.mixture import Mixture, Part
from lmjax.objectives.prefix_lm import PrefixLM
from lmjax.objectives.span_corruption import SpanCorruption

MODES = ("R", "S", "X")
NUM_SENTINELS = span_corruption.NUM_SENTINELS + len(MODES)
ARCHITECTURE = "encoder_decoder"

# (mode, mean length of spans, share of the text that is hidden)
SPANS = (
    ("R", 3.0, 0.15),
    ("R", 8.0, 0.15),
    ("X", 3.0, 0.5),
    ("X", 8.0, 0.5),
    ("X", 64.0, 0.15),
    ("X", 64.0, 0.5),
)
SEQUENTIAL_SHARE = 0.25


def describe(config: Config) -> Description:
    """What it says of itself."""
    del config
    spans = {
        mode: ", ".join(
            f"{mean:g} tokens ({percent(rate)})" for m, mean, rate in SPANS if m == mode
        )
        for mode in ("R", "X")
    }
    mode = {name: k - len(MODES) for k, name in enumerate(MODES)}  # the last sentinels
    return Description(
        name="UL2's mixture of denoisers",
        how=f"{len(SPANS) + 1} denoisers in equal shares, each with a mode token in front; R: "
        f"spans of {spans['R']} on average are hidden; X: spans of {spans['X']}; S: the last "
        f"{percent(SEQUENTIAL_SHARE)} of a text are written",
        does="fills hidden spans of a text and continues one",
        frame=((), ("eos",)),
        left_out="sentinels and end tokens",
        prompts=(
            Prompt((mode["R"], "It is", 0, " today."), "mode R: fill a short span"),
            Prompt((mode["S"], "The weather is"), "mode S: go on"),
            Prompt((mode["X"], "The weather", 0), "mode X: fill a long span"),
        ),
        gap=Gap((mode["R"], BEFORE, 0, AFTER, 1), (0,), (FILLING, 1)),
        continuation=Gap((mode["S"], BEFORE), (), (FILLING,)),
    )


def make(config: Config, ids: Ids) -> Mixture:
    """The objective that `config` describes."""
    own = ids.num_sentinels
    num_spans = span_corruption.NUM_SENTINELS if own is None else max(own - len(MODES), 0)
    ids = ids if own is None else dataclasses.replace(ids, num_sentinels=num_spans)
    mode = {name: int(ids.sentinel(num_spans + k)) for k, name in enumerate(MODES)}
    length = config.data.seq_len - 1  # behind the mode token
    # All take the same text, so each is made for no more than that comes to.
    window = min(span_corruption.raw_length(length, rate, mean) for _, mean, rate in SPANS)
    parts = []
    for name, mean, rate in SPANS:
        hidden, spans = span_corruption.span_counts(window, rate, mean)
        denoiser = SpanCorruption(int(window - hidden + spans + 1), ids, rate, mean)
        parts.append(Part(denoiser, mode=mode[name]))
    parts.append(Part(PrefixLM(length, ids, SEQUENTIAL_SHARE), mode=mode["S"]))
    return Mixture(config.data.seq_len, tuple(parts))
