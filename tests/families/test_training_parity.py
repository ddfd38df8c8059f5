"""Twenty steps of AdamW on the same batches from the same weights: our training step and
optimizer, as a run has them, against PyTorch's on transformers' models.

Both add epsilon to the corrected second moment's root, and decay by the rate times the parameter.
PyTorch clips by norm + 1e-6 where we clip by the norm, which is a millionth. The bias of keys has
no gradient but rounding, which Adam divides by itself: that parameter differs, and no logit does.
A ReLU near its kink does the like to a loss: at three times T5's rate here, PyTorch in float32 is
after four steps as far from PyTorch in float64 as from us.
"""

import dataclasses

import jax
import numpy as np
import ours
import pytest
from models import CASES, training_batch

from lmjax.export import from_hf

pytestmark = [
    pytest.mark.parity,
    # 2026-11: third-party imports warn (torch, transformers on Python 3.11).
    pytest.mark.filterwarnings("ignore"),
]

RATES = {
    "bert": 3e-3,
    "modernbert": 3e-3,
    "gpt2": 3e-3,
    "llama": 3e-3,
    "t5": 1e-3,
    "t5_own_head": 3e-3,
    "bart": 3e-3,
}
DECAY = 0.1


def ours_losses(published, batches, rate):
    config = from_hf.config_of(
        published,
        {
            "data.seq_len": 64,
            "train.global_batch_size": len(batches[0]["inputs"]),
            "train.micro_batch_size": len(batches[0]["inputs"]),
            "optimizer.learning_rate": rate,
            "optimizer.beta1": 0.9,
            "optimizer.beta2": 0.95,
            "optimizer.epsilon": 1e-8,
            # BART's bias of the logits is no parameter of theirs.
            "optimizer.weight_decay": (("head_bias", 0.0), (".*", DECAY))
            if published.model.frozen_logits_bias
            else ((".*", DECAY),),
            "optimizer.clip_norm": 1.0,
            "schedule.name": "constant",
        },
    )
    steps = ours.steps(config)
    with steps.program.context():
        shardings = steps.program.shardings.params
        params = jax.device_put(ours.parameters(published), shardings)
        state = steps.program.init().replace(params=params)
        losses = []
        for batch in batches:
            state, metrics = steps(state, batch, fresh=True)
            losses.append(float(metrics["loss"]))
    return losses


@pytest.mark.parametrize("name", RATES)
def test_twenty_steps(theirs, tmp_path, name):
    case, rate = dataclasses.replace(CASES[name], length=40), RATES[name]
    batches = [training_batch(case, seed) for seed in range(20)]
    model = theirs.make(case)
    published = from_hf.check(str(theirs.save(model, tmp_path / "saved")))
    got = np.array(ours_losses(published, batches, rate))
    expected = np.array(
        theirs.trained(model, case, batches, rate=rate, betas=(0.9, 0.95), decay=DECAY)
    )
    difference = np.abs(got - expected)
    print(f"losses {expected[0]:.2f} to {expected[-1]:.2f}, first three within ", end="")
    print(f"{difference[:3].max():.1e}, all within {difference.max():.1e}")
    assert expected[-1] < expected[0] - 0.1
    assert difference[:3].max() <= 1e-5
    assert difference.max() <= 1e-3
