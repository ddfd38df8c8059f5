"""What a token costs behind a long prompt and behind a short one."""

import time

import flax.linen as nn
import jax
import numpy as np
import pytest

from lmjax import families
from lmjax.config import MeshConfig
from lmjax.infer.generate import Generator
from lmjax.model_config import ModelConfig
from lmjax.nn.model import Model, smallest_batch
from lmjax.parallel import mesh as mesh_lib
from lmjax.parallel import rules

SHORT, LONG, NEW, ROUNDS, ATTEMPTS = 32, 512, 64, 7, 3


def seconds_per_token(generators, params, prompts):
    """Length -> median of the time that NEW tokens after the first take; by turns, so that what
    else this machine does meets all alike."""
    times = {(length, count): [] for length in prompts for count in generators}
    for _ in range(ROUNDS + 1):
        for (length, count), found in times.items():
            began = time.perf_counter()
            generators[count](params, [prompts[length]])
            found.append(time.perf_counter() - began)
    median = {key: np.median(found[1:]) for key, found in times.items()}  # the first compiles
    return {length: (median[length, 1 + NEW] - median[length, 1]) / NEW for length in prompts}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_long_prompt_makes_a_token_hardly_dearer(family):
    size = {"hidden_size": 256, "num_layers": 4, "num_heads": 4, "head_dim": 64}
    model = Model(ModelConfig(**families.FAMILIES[family].BASE | size), 8192)
    batch = {k: np.ones(v.shape, v.dtype) for k, v in smallest_batch(model.config).items()}
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), batch))["params"]
    mesh = mesh_lib.make_mesh(MeshConfig(), jax.devices()[:1])
    start = 0 if family == "t5" else None
    make = lambda count: Generator(
        model,
        rules.batch_sharding(mesh),
        eos_id=None,
        max_new_tokens=count,
        decoder_start_id=start,
    )
    generators = {count: make(count) for count in (1, 1 + NEW)}
    rng = np.random.default_rng(0)
    prompts = {n: rng.integers(5, 8000, n).astype(np.int32) for n in (SHORT, LONG)}
    params = jax.device_put(params, jax.devices()[0])
    ratios = []
    with mesh_lib.context(mesh, MeshConfig()):
        while len(ratios) < ATTEMPTS and not (ratios and min(ratios) <= 1.5):
            found = seconds_per_token(generators, params, prompts)
            ratios.append(found[LONG] / found[SHORT])
            print(*(f"{n}: {1e3 * cost:.2f} ms per token" for n, cost in found.items()))
    assert min(ratios) <= 1.5, ratios
