"""The worst step of each row, beside what a plain Python loop finds."""

import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.train import peaks


@pytest.mark.parametrize("every", [1, 3, 7])
def test_rows_name_the_worst_step_since_the_last(every):
    rng = np.random.default_rng(every)
    losses, norms = rng.normal(size=(2, 21)).astype(np.float32)  # negative ones, too
    made = rng.random(21) > 0.3
    state = peaks.zeros()
    for step in range(1, 22):
        values = {"loss": jnp.float32(losses[step - 1]), "grad_norm": jnp.float32(norms[step - 1])}
        fresh = (step - 1) % every == 0
        state = peaks.updated(state, values, jnp.int32(step), made[step - 1], fresh)
        if step % every:
            continue
        row = peaks.fields({name: np.asarray(value) for name, value in state.items()})
        window = [at for at in range(step - every, step) if made[at]]
        if not window:
            assert row == {}
            continue
        for name, all_values in (("loss", losses), ("grad_norm", norms)):
            worst = max(window, key=lambda at, values=all_values: values[at])
            assert row[f"max_{name}"] == float(all_values[worst])
            assert row[f"max_{name}_step"] == worst + 1
