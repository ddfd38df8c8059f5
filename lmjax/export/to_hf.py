"""A workdir -> a folder that the stock classes of Hugging Face transformers load.

The parameters stay in the checkpoint and are read slice by slice, as their tensors are written: no
more than one of them is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from lmjax import families, objectives, paths
from lmjax.config import Config
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.progress import Progress
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.errors import UserError, reason
from lmjax.export import card, sums, tokenizer_files
from lmjax.export import facts as facts_lib
from lmjax.export.from_hf import UNUSED
from lmjax.export.sections import Subject
from lmjax.families import weights
from lmjax.hf import tensors as tensors_lib
from lmjax.hf.format import Format
from lmjax.hf.table import Entry
from lmjax.hf.tensors import Tensor
from lmjax.train import copied_checkpoints, trained, workdir
from lmjax.train.checkpoint import Checkpoints


@dataclass(frozen=True)
class Exportable:
    """A model in the words of a stock class.

    Attributes:
      config: of the run.
      fmt: the stock class.
      hf_config, generation_config: contents of the JSON files; None: there is none.
      ids: special ids, by name.
      tokenizer: of the run.
    """

    config: Config
    fmt: Format
    hf_config: dict[str, Any]
    generation_config: dict[str, Any] | None
    ids: dict[str, int | None]
    tokenizer: AnyTokenizer


def describe(path: str, dtype: str) -> Exportable:
    """What a workdir's model is to transformers; reads no weights.

    Raises:
      UserError: there is no run, or no stock class can express its model.
    """
    path, run = workdir.existing(path)
    config, tokenizer = run.config, tokenizer_lib.load(paths.join(path, "tokenizer"))
    ids = trained.special_ids(config, tokenizer)
    fmt, hf_config = _expressed(config, ids, dtype)
    imported = "model_type" in (run.source or {})  # and may have learned to begin otherwise
    if config.model.architecture == "encoder_decoder" and not imported:
        before, _ = objectives.describe(config).frame
        if "bos" in before:
            hf_config["forced_bos_token_id"] = ids["bos"]
    generation = None
    if fmt.generates:
        names = [f"{name}_token_id" for name in (*fmt.ids, "forced_bos", "forced_eos")]
        said = {name: hf_config[name] for name in names if hf_config.get(name) is not None}
        generation = {"_from_model_config": True, **said}
    return Exportable(config, fmt, hf_config, generation, ids, tokenizer)


def _expressed(config: Config, ids: Mapping[str, Any], dtype: str) -> tuple[Format, dict]:
    """The family's first stock class that can say what the model is."""
    model, errors = config.model, []
    if model.max_positions is None:  # of the classes that want to be told some length
        model = model.model_copy(update={"max_positions": config.data.seq_len})
    for general in families.FAMILIES[config.family].FORMATS:
        try:
            fmt = general.with_head(model.head)
            return fmt, fmt.write_config(model, ids, dtype) | _named_classes(config)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _named_classes(config: Config) -> dict[str, Any]:
    """What a classifier's config says of its classes; nothing where there are none."""
    labels = config.objective.labels
    if not labels:
        return {}
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def export(
    path: str,
    folder: str,
    *,
    progress: Progress,
    step: int | None = None,
    dtype: str = "float32",
    max_shard_bytes: int = tensors_lib.MAX_SHARD_BYTES,
    with_tokenizer: bool = True,
    repo: str | None = None,
    license: str | None = None,
) -> str:
    """Writes the model of a workdir into an existing, empty local folder.

    Args:
      path: the workdir, local or a URL.
      folder: where to.
      progress: told of the bytes that are written.
      step: of the checkpoint; None: the newest.
      dtype: key of `hf.tensors.DTYPES`.
      max_shard_bytes: of a file.
      with_tokenizer: whether its tokenizer goes along.
      repo: OWNER/NAME that the model will have on the Hub, for its card.
      license: the Hub's identifier of one, for its card.

    Returns:
      One line on what was written.

    Raises:
      UserError: as `describe`; there is no such checkpoint; or transformers would make another
        tokenizer of the files.
    """
    path, _ = workdir.existing(path)
    model = describe(path, dtype)
    told = "without tokenizer"
    if with_tokenizer:
        told = tokenizer_files.write(folder, model.config, model.tokenizer)
    with copied_checkpoints.reading(paths.join(path, "checkpoints"), step) as (checkpoints, found):
        facts = facts_lib.gather(path, found, checkpoints.meta(found))
        tensors = _tensors(model, checkpoints, found, path)
        numbers = _write_weights(folder, tensors, dtype, max_shard_bytes, progress)
    _write_configs(folder, model)
    sentinels = trained.sentinel_ids(model.config, model.tokenizer)
    named = tokenizer_files.names_sentinels(model.config, model.tokenizer)
    subject = Subject(facts, model.fmt, model.ids, dtype, repo, license, sentinels, named)
    lacks = card.write(subject, folder)
    sums.write(folder)
    missing = f"; its card lacks {' and '.join(lacks)}" if lacks else ""
    return (
        f"{model.fmt.stock_class} at step {found}, {numbers:,} numbers in {dtype}, "
        f"{len(paths.files_below(folder))} files; {told}{missing}"
    )


def _write_weights(
    folder: str, tensors: list[Tensor], dtype: str, max_shard_bytes: int, progress: Progress
) -> int:
    """Writes tensors one by one; returns how many numbers they have."""
    done, item = 0, tensors_lib.DTYPES[dtype][1]
    total = sum(tensor.nbytes(item) for tensor in tensors)

    def on_tensor(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(done, total)

    tensors_lib.write(
        folder, tensors, dtype=dtype, max_shard_bytes=max_shard_bytes, on_tensor=on_tensor
    )
    return total // item.itemsize


def _write_configs(folder: str, model: Exportable) -> None:
    documents = {"config.json": model.hf_config}
    if model.generation_config is not None:
        documents["generation_config.json"] = model.generation_config
    for name, content in documents.items():
        (Path(folder) / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _tensors(
    exportable: Exportable, checkpoints: Checkpoints, step: int, path: str
) -> list[Tensor]:
    """What is to be written, by name; each is read from the checkpoint when its turn comes."""
    fmt, model = exportable.fmt, exportable.config.model
    shapes = weights.shapes(model)
    arrays = checkpoints.arrays(step, shapes)
    entries = {entry.name: entry for entry in weights.entries(fmt, model, exportable.ids)}

    def tensor(name: str, entry: Entry) -> Tensor:
        return Tensor(name, entry.shape, lambda: weights.to_published(entry, arrays))

    tensors = {name: tensor(name, entry) for name, entry in entries.items()}
    tensors |= {name: tensor(name, entries[of]) for name, of in fmt.unused(model).items()}
    tensors |= {k: v for k, v in _kept(path).items() if k in fmt.unused(model)}
    return sorted(tensors.values(), key=lambda t: t.name)


def _kept(path: str) -> dict[str, Tensor]:
    """What an import kept of its folder that no model computes with."""
    content = paths.read_bytes(paths.join(path, UNUSED))
    if content is None:
        return {}
    try:
        arrays = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"{paths.join(path, UNUSED)}: damaged ({reason(error)}); import the model again"
        ) from None
    return {k: Tensor(k, v.shape, lambda v=v: v) for k, v in arrays.items()}
