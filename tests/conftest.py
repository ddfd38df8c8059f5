"""Eight CPU devices for every test, and quick compilation, set before JAX starts."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Most of the time of these tests goes to compiling; a test of exact bits asks for level 3.
    + " --xla_backend_optimization_level=1"
)
