"""Our side: folders of transformers imported and exported, logits of workdirs, training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lmjax.batch import Ids
from lmjax.config import Config
from lmjax.export import from_hf, to_hf
from lmjax.export.from_hf import Published
from lmjax.families import weights
from lmjax.train import setup, trained
from lmjax.train.setup import Steps


def _quiet(done: int, of: int) -> None:
    pass


def imported(source: Path, workdir: Path) -> Path:
    """A folder of theirs -> a workdir."""
    published = from_hf.check(str(source))
    workdir.mkdir()
    from_hf.write(published, from_hf.config_of(published, {}), str(workdir), _quiet)
    return workdir


def exported(workdir: Path, folder: Path, **how: Any) -> Path:
    """A workdir -> a folder of theirs."""
    folder.mkdir()
    to_hf.export(str(workdir), str(folder), progress=_quiet, **how)
    return folder


def parameters(published: Published) -> dict[str, Any]:
    """A folder of theirs -> nested parameters in memory."""
    tensors = {entry.name: published(entry.name) for entry in published.entries}
    return weights.nested(weights.from_published(published.entries, tensors))


def logits(workdir: Path, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Logits of a workdir's model in float32, [B, T, V]."""
    loaded = trained.load(str(workdir), devices=jax.devices()[:1])
    with loaded.context():
        return np.asarray(jax.jit(loaded.model.apply)({"params": loaded.params}, batch))


def steps(config: Config) -> Steps:
    """The compiled steps of a config on one device; batches may be of any shape."""
    ids = Ids(num_ids=config.model.vocab_size // 2, num_rows=config.model.vocab_size)
    program = setup.make_program(config, jax.devices()[:1], ids)
    nothing = np.zeros(config.model.vocab_size, np.float32)
    return setup.make_steps(
        program, dict.fromkeys(("unigram", "content_unigram", "bytes"), nothing)
    )
