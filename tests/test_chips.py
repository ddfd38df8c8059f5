"""The table of chips finds what JAX calls them."""

import pytest

from lmjax import chips


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("TPU v5 lite", 197),
        ("TPU v5p", 459),
        ("TPU v5", 459),
        ("TPU v6 lite", 918),
    ],
)
def test_peaks(kind, tera):
    assert chips.peak_flops(kind) == tera * 1e12
    assert chips.peak_flops("cpu") is None


def test_a_tpu_that_is_not_here_has_its_datasheets_memory():
    assert {name: chip.memory >> 30 for name, chip in chips.BY_NAME.items()} == {
        "v5e": 15,
        "v5p": 95,
        "v6e": 31,
        "h200": 140,
        "h100": 80,
        "a100": 80,
    }
    for chip in chips.CHIPS:
        assert chips.of(chip.device_kind) is chip
