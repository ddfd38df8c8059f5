import math

import jax.numpy as jnp
import pytest

from lmjax.config import ScheduleConfig
from lmjax.optim.schedule import make_schedule


def rates(name, steps, **fields):
    schedule = make_schedule(ScheduleConfig(name=name, **fields), peak=2.0)
    return [float(schedule(jnp.int32(s))) for s in steps]


@pytest.mark.parametrize("name", ["linear", "cosine", "rsqrt", "constant", "wsd"])
def test_warm_up_rises_linearly_to_the_peak(name):
    got = rates(name, range(11), warmup_steps=10, decay_steps=100)
    assert got[:10] == pytest.approx([2.0 * (t + 1) / 10 for t in range(10)])
    assert got[10] == pytest.approx(2.0)


def test_shapes_at_their_landmarks():
    fields = {"warmup_steps": 10, "decay_steps": 110, "final_fraction": 0.1}
    assert rates("linear", [60, 110, 500], **fields) == pytest.approx([1.1, 0.2, 0.2])
    assert rates("cosine", [60, 110, 500], **fields) == pytest.approx([1.1, 0.2, 0.2])
    quarter = 2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates("cosine", [35], **fields) == pytest.approx([quarter])
    assert rates("constant", [60, 1000], **fields) == pytest.approx([2.0, 2.0])
    assert rates("rsqrt", [40, 1000], **fields) == pytest.approx([1.0, 0.2])
    held = rates("rsqrt", [0, 99, 100, 400], hold_steps=100, decay_steps=500)  # T5's, shortened
    assert held == pytest.approx([2.0, 2.0, 2.0, 1.0])


def test_wsd_is_flat_then_falls_by_one_minus_sqrt():
    fields = {"decay_steps": 100, "final_fraction": 0.0, "cooldown_fraction": 0.2}
    got = rates("wsd", [0, 50, 80, 85, 95, 100], **fields)
    expected = [2.0, 2.0, 2.0, 2 * (1 - 0.25**0.5), 2 * (1 - 0.75**0.5), 0.0]
    assert got == pytest.approx(expected, abs=1e-6)
