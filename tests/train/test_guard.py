"""Which updates are not made, against a plain reading of the rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.train import guard


def judged(losses, norms=None, skip_spikes=False):
    """Whether each step is made, and the last guard."""
    norms = [1.0] * len(losses) if norms is None else norms
    state, made = guard.zeros(skip_spikes), []
    judge = jax.jit(guard.judge)
    for loss, norm in zip(losses, norms, strict=True):
        one, state = judge(state, jnp.float32(loss), jnp.float32(norm))
        made.append(bool(one))
    return made, jax.device_get(state)


def plain(losses):
    """The spike rule in a few lines of NumPy, for losses alone and spikes that come singly."""
    window, made = [], []
    for value in losses:
        far = len(window) >= 128 and value > np.mean(window) + 6 * np.std(window)
        made.append(not far)
        if not far:
            window = [*window[-127:], value]
    return made


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_updates_that_are_not_finite_are_counted(bad):
    made, state = judged([5, bad, 4, bad, bad])
    assert made == [True, False, True, False, False]
    assert (state["skipped"], state["in_a_row"]) == (3, 2)
    made, state = judged([5, 5], norms=[bad, 1])
    assert made == [False, True]
    assert (state["skipped"], state["in_a_row"]) == (1, 0)


def test_spikes_are_left_out_as_a_plain_reading_has_it():
    rng = np.random.default_rng(0)
    losses = rng.normal(5, 0.1, 400)
    losses[[50, 150, 151, 300]] += 100  # the first while the window is not full
    losses[200] -= 100  # a fall is no spike
    made, state = judged(losses, skip_spikes=True)
    assert made == plain(losses)
    assert not any(made[i] for i in (300,))
    assert (state["skipped"], state["in_a_row"]) == (made.count(False), 0)
    assert all(judged(losses)[0])  # off by default


def test_a_gradient_alone_is_a_spike_too():
    rng = np.random.default_rng(1)
    norms = rng.normal(1, 0.1, 200)
    norms[180] = 100
    made, _ = judged([5.0] * 200, norms, skip_spikes=True)
    assert [i for i, one in enumerate(made) if not one] == [180]


def test_a_new_level_is_accepted_in_the_end():
    rng = np.random.default_rng(2)
    losses = np.concatenate([rng.normal(2, 0.1, 150), rng.normal(6, 0.1, 150)])
    made, state = judged(losses, skip_spikes=True)
    assert made == [True] * 150 + [False] * (guard.LIMIT - 1) + [True] * (151 - guard.LIMIT)
    assert state["seen"] == 151 - guard.LIMIT
