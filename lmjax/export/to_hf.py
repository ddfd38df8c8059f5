"""A workdir -> a folder that the stock classes of Hugging Face transformers load.

The parameters stay in the checkpoint and are read slice by slice, as their tensors are written: no
more than one of them is in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmjax import families, paths
from lmjax.config import Config
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.tokenizer import AnyTokenizer, IdsTokenizer
from lmjax.errors import UserError
from lmjax.export.from_hf import UNUSED
from lmjax.families import weights
from lmjax.hf import tensors as tensors_lib
from lmjax.hf.format import Format
from lmjax.hf.tensors import Tensor, Tensors
from lmjax.train import trained, workdir
from lmjax.train.checkpoint import Checkpoints


@dataclass(frozen=True)
class Exportable:
    """A model in the words of a stock class.

    Attributes:
      config: of the run.
      fmt: the stock class.
      hf_config, generation_config: contents of the JSON files; None: there is none.
      ids: special ids, by name.
    """

    config: Config
    fmt: Format
    hf_config: dict[str, Any]
    generation_config: dict[str, Any] | None
    ids: dict[str, int | None]


def describe(path: str, dtype: str) -> Exportable:
    """What a workdir's model is to transformers; reads no weights.

    Raises:
      UserError: there is no run, or no stock class can express its model.
    """
    path = path if paths.is_remote(path) else os.path.expanduser(path)
    run = workdir.read(path)
    if run is None:
        raise UserError(f"workdir {path} holds no run; train one there first, or check the path")
    config, tokenizer = run.config, tokenizer_lib.load(paths.join(path, "tokenizer"))
    ids = _special_ids(config, tokenizer)
    fmt, hf_config = _expressed(config, ids, dtype)
    generation = None
    if fmt.generates:
        names = [f"{name}_token_id" for name in fmt.ids] + ["forced_eos_token_id"]
        said = {name: hf_config[name] for name in names if hf_config.get(name) is not None}
        generation = {"_from_model_config": True, **said}
    return Exportable(config, fmt, hf_config, generation, ids)


def _expressed(config: Config, ids: Mapping[str, Any], dtype: str) -> tuple[Format, dict]:
    """The family's first stock class that can say what the model is."""
    model, errors = config.model, []
    if model.max_positions is None:  # of the classes that want to be told some length
        model = model.model_copy(update={"max_positions": config.data.seq_len})
    for fmt in families.FAMILIES[config.family].FORMATS:
        try:
            return fmt, fmt.write_config(model, ids, dtype)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _special_ids(config: Config, tokenizer: AnyTokenizer) -> dict[str, int | None]:
    if isinstance(tokenizer, IdsTokenizer):
        return dict(tokenizer.config["special"])
    begin = tokenizer.bos_id
    if config.model.architecture == "decoder":  # whose documents follow on an end
        begin = tokenizer.eos_id
    return {
        "pad": tokenizer.pad_id,
        "bos": begin,
        "eos": tokenizer.eos_id,
        "cls": begin,
        "sep": tokenizer.eos_id,
        "decoder_start": trained.decoder_start_id(config, tokenizer),
    }


def write(
    exportable: Exportable,
    checkpoints: Checkpoints,
    step: int,
    path: str,
    folder: str,
    *,
    dtype: str = "float32",
    max_shard_bytes: int = tensors_lib.MAX_SHARD_BYTES,
    on_tensor: Callable[[int], None] = lambda nbytes: None,
) -> list[str]:
    """Writes config and weights into an existing, empty local folder.

    Args:
      exportable: from `describe`.
      checkpoints, step: where the parameters are.
      path: the workdir.
      folder: where to.
      dtype: key of `hf.tensors.DTYPES`.
      max_shard_bytes: of a file.
      on_tensor: told the bytes of each tensor once it is written.

    Returns:
      Names of the files.
    """
    fmt, model = exportable.fmt, exportable.config.model
    shapes = weights.shapes(model)
    arrays = checkpoints.arrays(step, shapes)
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise UserError(
                f"{checkpoints.name}/{step}: {name} is {list(arrays[name].shape)}, by config.json "
                f"it has to be {list(shape)}; is it the checkpoint of another run?"
            )
    entries = {entry.name: entry for entry in weights.entries(fmt, model, exportable.ids)}

    def tensor(name: str, entry_name: str) -> Tensor:
        entry = entries[entry_name]
        return Tensor(name, entry.shape, lambda: weights.to_published(entry, arrays))

    tensors = [tensor(name, name) for name in entries]
    kept = _kept(path, Path(folder))
    for name, of in fmt.unused(model).items():
        tensors.append(kept.get(name) or tensor(name, of))
    tensors.sort(key=lambda t: t.name)
    files = tensors_lib.write(
        folder, tensors, dtype=dtype, max_shard_bytes=max_shard_bytes, on_tensor=on_tensor
    )
    documents = {"config.json": exportable.hf_config}
    if exportable.generation_config is not None:
        documents["generation_config.json"] = exportable.generation_config
    for name, content in documents.items():
        (Path(folder) / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return [*files, *documents]
