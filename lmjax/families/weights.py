"""A family's weight table for one model: which of its parameters is which published tensor."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from lmjax.hf import table
from lmjax.hf.format import Format, Ids
from lmjax.hf.table import Entry, Place
from lmjax.model_config import ModelConfig
from lmjax.nn import stack
from lmjax.nn.model import Model, smallest_batch


def flat(params: Any) -> dict[str, Any]:
    """Nested parameters -> {path: leaf}, paths with slashes."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """{path: leaf} -> nested parameters."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        functools.reduce(lambda node, name: node.setdefault(name, {}), parents, tree)[last] = leaf
    return tree


def shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by path; nothing is allocated."""
    init = Model(model, model.vocab_size).init
    unboxed = lambda key, batch: nn.unbox(init(key, batch)["params"])
    tree = jax.eval_shape(unboxed, jax.random.key(0), smallest_batch(model))
    return {path: leaf.shape for path, leaf in flat(tree).items()}


def entries(fmt: Format, model: ModelConfig, ids: Ids) -> list[Entry]:
    """All tensors of a model in a published format, in the order of their names in it."""
    layers = {"stack": _places("stack", stack.layout(model))}
    if model.architecture == "encoder_decoder":
        layers["encoder"] = _places("encoder", stack.encoder_layout(model))
    found = table.expand(fmt.rows(model, ids), shapes(model), layers)
    return sorted(found, key=lambda entry: entry.name)


def _places(name: str, layout: stack.Layout) -> list[Place]:
    """Where the parameters of each block of a stack are, in the order of the blocks."""
    places: list[Place] = [(f"{name}/prefix_{i}", None) for i in range(len(layout.prefix))]
    for unit in range(layout.num_units):
        places += [(f"{name}/unit/{slot}", unit) for slot in range(len(layout.unit))]
    return places + [(f"{name}/suffix_{i}", None) for i in range(len(layout.suffix))]


def from_published(
    table_entries: list[Entry], tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Published tensors -> float32 parameters by path, in memory."""
    stacked: dict[str, dict[int | None, np.ndarray]] = {}
    for entry in table_entries:
        for (path, index), part in zip(
            entry.places, entry.to_ours(tensors[entry.name]), strict=True
        ):
            stacked.setdefault(path, {})[index] = np.asarray(part, np.float32)
    return {
        path: parts[None] if None in parts else np.stack([parts[i] for i in sorted(parts)])
        for path, parts in stacked.items()
    }


def to_published(entry: Entry, leaves: Mapping[str, Any]) -> np.ndarray:
    """One published tensor from parameters by path, of which only the slices it needs are read."""
    return entry.to_theirs(
        [np.asarray(leaves[path] if i is None else leaves[path][i]) for path, i in entry.places]
    )
