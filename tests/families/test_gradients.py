"""Same weights, same batch, same gradients: against PyTorch's of transformers' models."""

import jax
import numpy as np
import ours
import pytest
from models import CASES, training_batch

from lmjax.export import from_hf
from lmjax.families import weights
from lmjax.nn.model import Model
from lmjax.train import loss

pytestmark = [
    pytest.mark.parity,
    # 2026-11: third-party imports warn (torch, transformers on Python 3.11).
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.parametrize("name", CASES)
def test_gradients(theirs, tmp_path, name):
    case, fields = CASES[name], training_batch(CASES[name])
    model = theirs.make(case)
    expected_loss = theirs.loss(model, case, fields)
    expected_loss.backward()
    theirs_grads = {
        name: parameter.grad.numpy()
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.grad is not None
    }

    published = from_hf.check(str(theirs.save(model, tmp_path / "saved")))
    ours_model = Model(published.model, published.model.vocab_size)
    nothing = np.zeros(published.model.vocab_size, np.float32)
    tables = dict.fromkeys(("unigram", "content_unigram", "bytes"), nothing)

    def mean_loss(params):
        total, sums = loss.sums(ours_model, params, fields, tables)
        return total / sums["weight"]

    got_loss, grads = jax.jit(jax.value_and_grad(mean_loss))(ours.parameters(published))
    assert abs(float(got_loss) - expected_loss.item()) <= 1e-5
    leaves = {path: np.asarray(leaf) for path, leaf in weights.flat(grads).items()}
    largest = max(np.abs(grad).max() for grad in theirs_grads.values())
    seen, worst = set(), 0.0
    for entry in published.entries:
        got = weights.to_published(entry, leaves)
        expected = theirs_grads.get(entry.name)
        if expected is None:  # of a buffer
            assert entry.name == "final_logits_bias"
            assert not got.any()
            continue
        seen.add(entry.name)
        scale = max(np.abs(expected).max(), 1e-3 * largest)
        worst = max(worst, np.abs(got - expected).max() / scale)
        assert np.abs(got - expected).max() <= 1e-4 * scale, entry.name
    print(f"largest relative difference of gradients: {worst:.1e}")
    # What is left are other names of the same.
    left = {id(dict(model.named_parameters(remove_duplicate=False))[n]) for n in theirs_grads}
    covered = {id(dict(model.named_parameters(remove_duplicate=False))[n]) for n in seen}
    assert left == covered
