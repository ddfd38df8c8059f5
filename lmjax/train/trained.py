"""A trained model as it is used: what a workdir holds, without data, optimizer or lock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lmjax import objectives, paths
from lmjax.config import Config
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.tokenizer import AnyTokenizer, IdsTokenizer, JsonTokenizer
from lmjax.infer.examples import Framing
from lmjax.nn.model import Model, smallest_batch
from lmjax.objectives.description import Description, Frame
from lmjax.parallel import mesh as mesh_lib
from lmjax.parallel import rules as rules_lib
from lmjax.train import copied_checkpoints, setup, state, workdir


@dataclass(frozen=True)
class Trained:
    """Everything that using a model takes.

    Attributes:
      config: of the run that trained it.
      step: after how many updates.
      model: computes in the type that was asked for.
      params: float32, laid over the mesh.
      tokenizer: of the run.
      decoder_start_id: what an encoder-decoder's decoder reads first; else None.
      imported: whether the run began with a published model.
      mesh: of the devices at hand.
      batch_sharding: how [B, ...] fields of a batch lie on it.
    """

    config: Config
    step: int
    model: Model
    params: Any
    tokenizer: AnyTokenizer
    decoder_start_id: int | None
    imported: bool
    mesh: Mesh
    batch_sharding: NamedSharding

    @property
    def description(self) -> Description:
        """What the objective of the run says of itself."""
        return objectives.describe(self.config)

    @property
    def frame(self) -> Frame:
        """Names of the special tokens in front of a text and of those behind it, as in training."""
        return self.description.frame

    @property
    def framing(self) -> Framing:
        """Text -> ids as in training."""
        return Framing(
            self.config.model,
            self.model.vocab_size,
            self.tokenizer,
            self.frame,
            self.decoder_start_id,
        )

    @property
    def begin_id(self) -> int | None:
        """What stands in front of a decoder's text, as in training the end of the one before.

        Published models are used to their own bos, and those that answer prompts to nothing.
        """
        if not self.description.begins_anew:
            return None
        bos_id = self.tokenizer.bos_id if self.imported else None
        return self.tokenizer.eos_id if bos_id is None else bos_id

    @property
    def forced_first_id(self) -> int | None:
        """What all that an encoder-decoder writes begins with, as in training, or None.

        Published models may have learned to begin otherwise.
        """
        before, _ = self.frame
        return self.tokenizer.bos_id if "bos" in before and not self.imported else None

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """What tracing looks for; enter it around whatever runs the model.

        float32 is float32 on every device: GPUs and TPUs would multiply in less.
        """
        laid = mesh_lib.context(self.mesh, self.config.mesh)
        with laid, jax.default_matmul_precision("highest"):
            yield

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Rows on the host -> the device batch."""
        return rules_lib.place(batch, self.batch_sharding)


def load(
    path: str,
    *,
    step: int | None = None,
    dtype: str = "float32",
    overrides: Mapping[str, Any] | None = None,
    devices: list[jax.Device] | None = None,
) -> Trained:
    """Loads a model from a workdir, where its run may still be going on.

    Args:
      path: the workdir, local or a URL.
      step: of the checkpoint; None: the newest.
      dtype: what is computed in.
      overrides: other values of free fields, such as those of the mesh.
      devices: None: all.

    Raises:
      UserError: there is no run or no such checkpoint, or the mesh does not fit the devices.
    """
    path, run = workdir.existing(path)
    config = workdir.resume(run, None, overrides or {}).config
    tokenizer = tokenizer_lib.load(paths.join(path, "tokenizer"))
    mesh = mesh_lib.make_mesh(config.mesh, devices)
    model = setup.make_model(config, jnp.dtype(dtype), mesh.devices.flat[0])
    abstract, shardings = state.abstract_params(model, smallest_batch(config.model), mesh)
    with copied_checkpoints.reading(paths.join(path, "checkpoints"), step) as (checkpoints, found):
        params = checkpoints.restore_params(found, abstract, shardings)
    return Trained(
        config,
        found,
        model,
        params,
        tokenizer,
        setup.decoder_start_id(config, tokenizer),
        "model_type" in (run.source or {}),
        mesh,
        rules_lib.batch_sharding(mesh),
    )


def special_ids(config: Config, tokenizer: AnyTokenizer) -> dict[str, int | None]:
    """Special ids of a run's model by name, as published configs name them.

    A decoder's documents begin with the id that ends the one before.
    """
    if isinstance(tokenizer, IdsTokenizer):
        return dict(tokenizer.config["special"])
    if isinstance(tokenizer, JsonTokenizer):
        named = tokenizer.config["special"]
        return named | {"decoder_start": setup.decoder_start_id(config, tokenizer)}
    is_decoder = config.model.architecture == "decoder"
    begin = tokenizer.eos_id if is_decoder else tokenizer.bos_id
    return {
        "pad": tokenizer.pad_id,
        "bos": begin,
        "eos": tokenizer.eos_id,
        "unk": tokenizer.unk_id,
        "mask": tokenizer.mask_id,
        "cls": begin,
        "sep": tokenizer.eos_id,
        "decoder_start": setup.decoder_start_id(config, tokenizer),
    }


def sentinel_ids(config: Config, tokenizer: AnyTokenizer) -> list[int]:
    """Ids of the sentinels, first to last: the tokenizer's own, or rows behind its ids."""
    first, count = getattr(tokenizer, "sentinels", (None, None))
    if first is None:
        room = config.model.vocab_size - tokenizer.vocab_size
        first, count = config.model.vocab_size - 1, min(objectives.num_sentinels(config), room)
    return [first - number for number in range(count)]
