"""Workdirs with random weights, and a small tokenizer of real text."""

import jax
import numpy as np

from lmjax import families
from lmjax import fields as fields_lib
from lmjax.data import files, tokenizer_training
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.train import setup
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.workdir import RunConfig, Workdir


def make_tokenizer(folder):
    """A tokenizer of 400 ids."""
    size = {"vocab_size": 400, "model_type": "bpe", "sample_bytes": 50_000}
    tokenizer_training.train(files.find_files("bundled:corpus_small"), folder, **size)
    return tokenizer_lib.load(folder)


def make_config(family, objective):
    """The resolved config of a small run; `objective`: its name, or its fields."""
    small = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "head_dim": 8, "mlp_size": 32}
    fields = {"name": objective} if isinstance(objective, str) else objective
    raw = {"family": family, "objective": fields, "data": {"seq_len": 16}}
    raw = families.resolve(raw | {"model": small | {"vocab_size": 640}})
    return setup.resolve(fields_lib.from_dict(raw))


def make_run(folder, family, objective, tokenizer, steps):
    """A workdir with checkpoints, as training or an import leaves it."""
    config = make_config(family, objective)
    program = setup.make_program(config, jax.devices()[:1])
    home = Workdir(folder)
    home.write(RunConfig(config, None))
    home.tokenizer.mkdir()
    tokenizer.save(home.tokenizer)
    checkpoints, rng = Checkpoints(home.checkpoints, keep=2), np.random.default_rng(0)
    for step in steps:
        drawn = lambda leaf: jax.numpy.asarray(rng.normal(size=leaf.shape) / 4, leaf.dtype)
        checkpoints.save(step, jax.tree.map(drawn, program.abstract), {})
    checkpoints.close()
    home.close()
