"""JAX is at work before each test, as in a process that has run others: nothing may fork it."""

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def jax_at_work():
    assert jax.devices()
