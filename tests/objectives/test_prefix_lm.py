import random

import numpy as np
import pytest
from test_mlm import EOS, IDS, PAD, make, make_windows
from test_statistics import is_distributed, look_alike, noise

from lmjax.errors import UserError
from lmjax.objectives.prefix_lm import PrefixLM

OBJECTIVE = PrefixLM(seq_len=32, ids=IDS)
QUARTER = PrefixLM(seq_len=25, ids=IDS, target_share=0.25)


def split_one(text, rng):
    """A text cut at a random point (Raffel et al. 2020, section 3.2.1): what is read, written."""
    point = rng.randint(1, len(text) - 1)
    return [*text[:point], EOS], [*text[point:], EOS]


@pytest.mark.parametrize("objective", [OBJECTIVE, QUARTER])
def test_ten_thousand_windows_keep_every_rule(objective):
    windows = make_windows(10_000, objective.window_length)
    rows = {name: field.tolist() for name, field in make(objective, windows).items()}
    for r, (tokens, documents) in enumerate(zip(*(w.tolist() for w in windows), strict=True)):
        row = {name: field[r] for name, field in rows.items()}
        text = tokens[: sum(d >= 0 for d in documents)]
        source = row["enc_inputs"][: sum(row["enc_segment_ids"])]
        target = row["targets"][: sum(row["segment_ids"])]
        if len(text) < 2:
            assert not source
            assert not target
        else:
            assert source.pop() == target[-1] == EOS
            assert source + target[:-1] == text
            assert source
            assert len(target) > 1
            if objective is QUARTER:
                assert len(target) - 1 == max(round(len(text) / 4), 1)
            source.append(EOS)
        padding = [PAD] * (objective.seq_len - len(source))
        assert row["enc_inputs"] == source + padding
        assert row["enc_positions"] == [*range(len(source)), *padding]
        padding = [PAD] * (len(row["targets"]) - len(target))
        assert row["targets"] == target + padding
        assert row["inputs"] == [IDS.decoder_start, *target][: len(target)] + padding
        assert row["positions"] == [*range(len(target)), *padding]
        assert row["weights"] == [1.0] * len(target) + padding
        content = [1.0] * (len(target) - 1) + [0.0] if target else []
        assert row["content_weights"] == content + padding


def test_every_split_is_equally_likely():
    tokens = np.random.default_rng(0).integers(5, IDS.num_ids, (10_000, 20)).astype(np.int32)
    batch = PrefixLM(20, IDS)(tokens, tokens * np.int64(0), noise(10_000))
    prefix = batch["enc_segment_ids"].sum(axis=1) - 1
    assert is_distributed(np.bincount(prefix, minlength=20)[1:], np.ones(19))
    rng = random.Random(1)
    theirs = [len(split_one(text, rng)[0]) - 1 for text in tokens.tolist()]
    assert look_alike(prefix.tolist(), theirs)


def test_sizes():
    assert OBJECTIVE.window_length == 32
    assert {shape[1] for shape, _ in OBJECTIVE.spec(1).values()} == {32}
    # 33 tokens: 25 and the end on one side would be one too many, 24 are read and 8 written.
    assert QUARTER.window_length == 32
    assert QUARTER.spec(1)["targets"] == ((1, 9), np.int32)
    with pytest.raises(UserError, match=r"data\.seq_len=1 is too short"):
        PrefixLM(1, IDS)
