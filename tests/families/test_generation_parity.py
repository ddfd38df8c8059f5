"""Greedy generation gives the tokens of transformers' `generate`. Needs the extra [parity]."""

import dataclasses

import jax
import numpy as np
import ours
import pytest
from models import CASES, FIRST_ID, UNUSED_ROWS

from lmjax import families
from lmjax.infer.generate import Generator
from lmjax.train import trained

pytestmark = [
    pytest.mark.parity,
    # 2026-11: third-party imports warn (torch, transformers on Python 3.11).
    pytest.mark.filterwarnings("ignore"),
]

ENCODERS = ("bert", "roberta", "modernbert")
WRITERS = [name for name, case in CASES.items() if case.model_type not in ENCODERS]
LENGTHS, COUNT = (30, 3, 17, 1), 64
# Models that repeat one token unless their parameters are moved this far.
MOVED = dict.fromkeys(("olmo2_tied", "t5_own_head", "t5_unscaled", "t5_scaled_own_head"), 0.4)


def room(case):
    """Tokens that follow on the longest prompt, 64 where there are positions for them."""
    positions = case.config.get("n_positions") or case.config.get("max_position_embeddings")
    if positions is None:
        return COUNT
    longest = 1 if case.model_type == "bart" else max(LENGTHS)
    return min(COUNT, positions - longest + 1)


def make_prompts(case):
    rng = np.random.default_rng(0)
    last = case.vocab_size - UNUSED_ROWS
    return [rng.integers(FIRST_ID, last, length).astype(np.int32) for length in LENGTHS]


def their_ids(model, case, prompts, count, eos=None):
    """What `generate` writes, int [rows, tokens]; a decoder's prompts are padded in front."""
    import torch

    two = case.model_type in ("t5", "bart")
    longest = max(map(len, prompts))
    inputs = np.full((len(prompts), longest), case.pad)
    mask = np.zeros_like(inputs)
    for row, prompt in enumerate(prompts):
        real = slice(len(prompt)) if two else slice(longest - len(prompt), longest)
        inputs[row, real], mask[row, real] = prompt, 1
    said = model.generation_config
    said.eos_token_id, said.forced_eos_token_id, said.pad_token_id = eos, None, case.pad
    found = model.generate(
        input_ids=torch.tensor(inputs),
        attention_mask=torch.tensor(mask),
        max_new_tokens=count,
        do_sample=False,
        # Their cache has as many layers as the encoder, whatever the decoder has.
        use_cache=case.config.get("num_layers") == case.config.get("num_decoder_layers"),
    )
    return found[:, 1 if two else longest :].numpy()


def our_ids(loaded, prompts, count, eos=None):
    generator = Generator(
        loaded.model,
        loaded.batch_sharding,
        eos_id=eos,
        max_new_tokens=count,
        decoder_start_id=loaded.decoder_start_id,
    )
    with loaded.context():
        return [found.ids.tolist() for found in generator(loaded.params, prompts)]


@pytest.mark.parametrize("name", WRITERS)
def test_greedy_tokens_are_theirs(theirs, tmp_path, name):
    case = dataclasses.replace(CASES[name], spread=MOVED.get(name, CASES[name].spread))
    model = theirs.make(case)
    work = ours.imported(theirs.save(model, tmp_path / "saved"), tmp_path / "work")
    loaded = trained.load(str(work), devices=jax.devices()[:1])
    prompts, count = make_prompts(case), room(case)
    expected = their_ids(model, case, prompts, count).tolist()
    assert our_ids(loaded, prompts, count) == expected
    assert len({tuple(row) for row in expected}) > 1
    # The end of one row leaves the others alone.
    eos = expected[0][count // 2]
    ended = [ids[: ids.index(eos)] if eos in ids else ids for ids in expected]
    assert our_ids(loaded, prompts, count, eos) == ended
    found = their_ids(model, case, prompts, count, eos).tolist()
    assert [ids[: ids.index(eos)] if eos in ids else ids for ids in found] == ended


def test_all_generating_families_are_here():
    written = {families.FORMATS[CASES[name].model_type][0] for name in WRITERS}
    generates = {
        name
        for name, family in families.FAMILIES.items()
        if family.BASE["architecture"] != "encoder"
    }
    assert written == generates
