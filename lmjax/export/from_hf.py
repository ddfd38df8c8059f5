"""A folder in the format of Hugging Face transformers -> a workdir.

Config, names and shapes are checked before anything is allocated. The parameters are gathered in
memory-mapped files, one of their tensors at a time, and then become a checkpoint of step 0 without
an optimizer's state: what starts there starts with fresh moments.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmjax import confine, families, flops, objectives, paths
from lmjax import fields as fields_lib
from lmjax.config import Config
from lmjax.data.progress import Progress
from lmjax.data.tokenizer import IdsTokenizer, JsonTokenizer
from lmjax.errors import UserError, reason
from lmjax.export import imported_tokenizer
from lmjax.families import weights
from lmjax.hf import tensors as tensors_lib
from lmjax.hf.format import Format
from lmjax.hf.names import Names, some
from lmjax.hf.table import Entry
from lmjax.hf.tensors import Tensors
from lmjax.model_config import ModelConfig
from lmjax.train import checkpoint, setup, workdir
from lmjax.train.workdir import RunConfig

UNUSED = "unused.safetensors"  # what the stock class has but does not compute with

_MAX_CONFIG_BYTES = 16 << 20
_AGAIN = "copy the folder again"
_MEND = "mend it, or give another model"
_SEQ_LEN = 512  # of further training, unless the model's positions end before


@dataclass(frozen=True)
class Published:
    """A checked folder: all that is needed to write it as a workdir.

    Attributes:
      family, fmt: of its config's model_type.
      model: its config in our words.
      ids: its special ids, by name.
      entries: every tensor, and where its parts go.
      files: today's name of a tensor -> the one it has in the folder.
      tensors: what reads them.
      unused: today's names of tensors that are only kept.
      config_sha256: of config.json.
      tokenizer: of the folder; None: only the special ids are known.
      tokenizer_said: how that is called.
    """

    family: str
    fmt: Format
    model: ModelConfig
    ids: dict[str, int | None]
    entries: list[Entry]
    files: dict[str, str]
    tensors: Tensors
    unused: list[str]
    config_sha256: str
    tokenizer: JsonTokenizer | None
    tokenizer_said: str

    def __call__(self, name: str) -> np.ndarray:
        """The tensor with today's name, as it is stored."""
        if name not in self.files:  # one of `Format.zeros`
            return np.zeros(next(e.shape for e in self.entries if e.name == name), np.float32)
        return self.tensors(self.files[name])


def check(folder: str) -> Published:
    """Reads config and headers of a folder, and no weights but those that may repeat others.

    Raises:
      UserError: no such folder, a model_type or a value of its config that is not supported,
        damaged files, pickles; a tokenizer of another model; tensors that are missing, unknown,
        doubled or of another shape.
    """
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; give one with config.json and safetensors")
    content, config = _read_config(Path(folder) / "config.json")
    family, fmt = _format(folder, config)
    tensors = Tensors(folder)
    if lost := tensors.lost():
        raise UserError(f"{folder}: {some(lost)} of the index in none of the files; {_AGAIN}")
    names = Names(fmt, tensors, folder)
    tied = config.get("tie_word_embeddings", True)
    if not isinstance(tied, bool):
        said = f"{folder}/config.json: tie_word_embeddings={tied!r:.40} is neither true nor false"
        raise UserError(f"{said}; {_MEND}")
    model, ids = _model(folder, family, fmt, config, names.is_tied(tied))
    _check_size(folder, model, tensors)
    entries = weights.entries(fmt, model, ids)
    files = names.check(entries, model)
    unused = [name for name in fmt.unused(model) if name in files]
    sha256 = hashlib.sha256(content).hexdigest()
    tokenizer = imported_tokenizer.read(
        folder, config, _within(ids, model), model.vocab_size, fmt.tokenizer_of
    )
    return Published(family, fmt, model, ids, entries, files, tensors, unused, sha256, *tokenizer)


def _read_config(file: Path) -> tuple[bytes, dict[str, Any]]:
    content = paths.read_bytes(confine.inside(file.parent, file.name), _MAX_CONFIG_BYTES)
    if content is None:
        raise UserError(f"{file.parent}: config.json is not there; give a whole folder")
    try:
        config = json.loads(content)
        if not isinstance(config, dict):
            raise ValueError("no JSON object")
        return content, config
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({reason(error)}); {_AGAIN}") from None


def _format(folder: str, config: Mapping[str, Any]) -> tuple[str, Format]:
    model_type = config.get("model_type")
    if model_type is None and {"config", "changes"} <= config.keys():
        raise UserError(f"{folder} is a run of lmjax already; give it as --workdir as it is")
    if not isinstance(model_type, str) or model_type not in families.FORMATS:
        raise UserError(
            f"{folder}/config.json: model_type={model_type!r:.40} is not supported; "
            f"{', '.join(families.FORMATS)} are"
        )
    return families.FORMATS[model_type]


def _model(
    folder: str, family: str, fmt: Format, config: Mapping[str, Any], tied: bool
) -> tuple[ModelConfig, dict[str, int | None]]:
    """The model that a config describes, and its special ids."""
    file = Path(folder) / "config.json"
    try:
        ids = fmt.read_ids(config)
        fields = fmt.read_fields(config, ids)
        fields |= {"tie_embeddings": tied, "vocab_size": config["vocab_size"]}
        shortest = {"seq_len": 2}  # the recipe is not yet asked about
        raw = {"family": family, "model": fields, "data": shortest}
        model = fields_lib.from_dict(raw).model
        if model.vocab_size is None:
            raise UserError(f"vocab_size is missing; {_AGAIN}")
    except UserError as error:
        said = str(error).removeprefix("config.json: ")
        raise UserError(f"{file}: {said}" + f"; {_MEND}" * ("; " not in said)) from None
    except KeyError as error:
        raise UserError(f"{file}: {error.args[0]} is missing; {_AGAIN}") from None
    except (
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        LookupError,
        RecursionError,
    ) as error:
        # Anyone's JSON: where a number is used there may be a list.
        raise UserError(
            f"{file}: some value is of the wrong kind ({type(error).__name__}: {reason(error)}); "
            f"{_AGAIN}"
        ) from None
    return model, ids


def _check_size(folder: str, model: ModelConfig, tensors: Tensors) -> None:
    """Raises UserError if a far larger model is described, whose table alone could take hours."""
    described = sum(flops.num_params(model).values())
    stored = sum(math.prod(shape) for shape in tensors.shapes.values())
    if described > 100 * stored:
        raise UserError(
            f"{folder}: config.json describes a model of {described:,} parameters, the weights "
            f"are {stored:,} numbers; {_AGAIN}"
        )


def _seq_len(max_positions: int | None) -> int:
    """Length of rows of further training."""
    return min(max_positions or _SEQ_LEN, _SEQ_LEN)


def config_of(published: Published, overrides: Mapping[str, Any]) -> Config:
    """The config of a run that goes on from a published model.

    Args:
      published: the model.
      overrides: dotted fields of its recipe; none of the model.

    Raises:
      UserError: an impossible combination, or a field of the model.
    """
    for name in overrides:
        if name == "family" or (name.startswith("model.") and name != "model.dropout"):
            raise UserError(f"config.{name} is what the imported folder says; leave it out")
    model = published.model
    recipe = {
        "family": published.family,
        "model": model.model_dump(),
        "objective": {"name": objectives.USUAL[model.architecture]}
        | families.published_objective(published.family),
        "data": {"seq_len": _seq_len(model.max_positions)},
    }
    flat = fields_lib.flatten(recipe) | dict(overrides)
    return setup.resolve(fields_lib.from_dict(fields_lib.unflatten(flat)))


def write(
    published: Published,
    config: Config,
    folder: str,
    progress: Progress,
) -> None:
    """Writes the workdir into an existing, empty local folder.

    Args:
      published: from `check`.
      config: from `config_of`.
      folder: where.
      progress: told of the bytes of the parameters that are read.
    """
    scratch = os.path.join(folder, "scratch")
    os.mkdir(scratch)
    leaves = _gather(published, scratch, progress)
    tokenizer = published.tokenizer
    identity = {} if tokenizer is None else {"tokenizer_sha256": tokenizer.sha256}
    checkpoint.save_weights(
        os.path.join(folder, "checkpoints"),
        weights.nested(leaves),
        {
            "imported": {
                "model_type": published.fmt.model_type,
                "config_sha256": published.config_sha256,
            },
            "seed": config.train.seed,
            **identity,
        },
    )
    del leaves
    shutil.rmtree(scratch)
    os.mkdir(os.path.join(folder, "tokenizer"))
    if tokenizer is None:
        ids = _within(published.ids, published.model)
        tokenizer = IdsTokenizer(published.model.vocab_size, ids)
    tokenizer.save(os.path.join(folder, "tokenizer"))
    if published.unused:
        kept = [
            tensors_lib.Tensor(name, array.shape, lambda array=array: array)
            for name, array in ((name, published(name)) for name in published.unused)
        ]
        tensors_lib.write_file(Path(folder) / UNUSED, kept)
    source = {
        "file": "config.json",
        "sha256": published.config_sha256,
        "model_type": published.fmt.model_type,
    }
    workdir.write(folder, RunConfig(config, source))


def summary(published: Published) -> str:
    """One line on what was imported."""
    number = sum(math.prod(entry.shape) for entry in published.entries)
    types = ", ".join(sorted(set(published.tensors.types.values())))
    takes = ": it takes ids and no text" if published.tokenizer is None else ""
    return (
        f"{published.fmt.stock_class}, {number:,} parameters in {len(published.entries)} tensors "
        f"({types}); {published.tokenizer_said}{takes}"
    )


def _within(ids: Mapping[str, int | None], model: ModelConfig) -> dict[str, int | None]:
    """Special ids that the model has rows for; the defaults of a class may be beyond them."""
    size = model.vocab_size
    return {k: v if v is not None and 0 <= v < size else None for k, v in ids.items()}


def _gather(published: Published, scratch: str, progress: Progress) -> dict[str, np.ndarray]:
    """Parameters by path, each in a memory-mapped file."""
    leaves: dict[str, np.ndarray] = {}
    for number, (path, shape) in enumerate(weights.shapes(published.model).items()):
        file = os.path.join(scratch, str(number))
        _reserve(file, 4 * math.prod(shape))
        leaves[path] = np.memmap(file, np.float32, "r+", shape=shape)
    total, done = sum(4 * leaf.size for leaf in leaves.values()), 0
    for entry in published.entries:
        parts = entry.to_ours(published(entry.name))
        for (path, index), part in zip(entry.places, parts, strict=True):
            leaves[path][... if index is None else index] = part
            done += 4 * part.size
        del parts, part  # before the next tensor is read
        progress(done, total)
    return leaves


def _reserve(file: str, nbytes: int) -> None:
    """A file of zeros that the disk has room for: a full one is an error now, a crash later."""
    with open(file, "wb") as out:
        out.truncate(nbytes)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(out.fileno(), 0, nbytes)
