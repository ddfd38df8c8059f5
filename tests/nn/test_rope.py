"""The rotation of queries and keys."""

import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.model_config import ModelConfig
from lmjax.nn.position import Rope, rotate


def test_a_rotation_is_that_of_complex_numbers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3, 8)).astype(np.float32)
    positions = rng.integers(0, 50, (2, 5))
    got = rotate(Rope(theta=100.0), jnp.asarray(x), jnp.asarray(positions))
    points = x[..., :4] + 1j * x[..., 4:]
    angles = positions[..., None, None] * 100.0 ** -(np.arange(4) / 4)
    turned = points * np.exp(1j * angles)
    np.testing.assert_allclose(got, np.concatenate([turned.real, turned.imag], -1), atol=1e-5)


def test_only_long_wavelengths_are_stretched():
    plain, longer = Rope(500_000.0).frequencies(64), Rope(500_000.0, 8.0, 8192).frequencies(64)
    waves = 2 * np.pi / plain
    short, long = waves < 8192 / 4, waves > 8192
    assert short.any()
    assert long.any()
    np.testing.assert_array_equal(longer[short], plain[short])
    np.testing.assert_allclose(longer[long], plain[long] / 8)
    between = ~(short | long)
    assert np.all((longer[between] > plain[between] / 8) & (longer[between] < plain[between]))


def test_an_odd_head_cannot_be_turned():
    with pytest.raises(ValueError, match="width is 5; set an even head_dim"):
        ModelConfig(position="rope", head_dim=5)
