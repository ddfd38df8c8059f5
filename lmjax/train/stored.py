"""What a checkpoint says of its arrays, read before any of them: a few hundred bytes each.

A chunk that is not there counts as zeros, so an array of any size costs nothing to claim; and what
is claimed is what reading allocates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import tensorstore

_NUMBERS = re.compile(r"[<>|]?[biuf][1248]|bfloat16|float8\w*|u?int[248]")


def open_state(url: str) -> tensorstore.KvStore:
    """The keys and values of the folder `state` of a checkpoint."""
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": url}).result()


def has(values: tensorstore.KvStore, name: str) -> bool:
    """Whether there is anything of a field of the state."""
    below = tensorstore.KvStore.KeyRange(f"{name}.", f"{name}/")
    return bool(values.list(below).result())


def names(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a tree, by the names that they are stored under."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="."): leaf.shape for k, leaf in leaves}


def check(values: tensorstore.KvStore, shapes: Mapping[str, Iterable[int]]) -> None:
    """Raises ValueError unless what is stored under these names is said to have these shapes."""
    documents = {name: values.read(f"{name}/.zarray") for name in shapes}
    for name, shape in shapes.items():
        shape, said = tuple(shape), _said(name, documents[name].result())
        if said["shape"] != list(shape):
            raise ValueError(f"{name} is {said['shape']}, by config.json it has to be {[*shape]}")
        most = [max(1, size) for size in shape]
        if len(said["chunks"]) != len(shape) or any(
            not 0 < chunk <= size for chunk, size in zip(said["chunks"], most, strict=True)
        ):
            raise ValueError(f"{name} of shape {[*shape]} is in chunks of {said['chunks']}")
        if not (isinstance(said["dtype"], str) and _NUMBERS.fullmatch(said["dtype"])):
            raise ValueError(f"{name} holds {said['dtype']!r:.40}, which are no numbers")


def _said(name: str, found: Any) -> dict[str, Any]:
    if found.state != "value":
        raise ValueError(f"{name} is not in it")
    said = json.loads(found.value)
    for key in ("shape", "chunks"):
        if not (isinstance(said[key], list) and all(type(n) is int for n in said[key])):
            raise ValueError(f"{name} says of its {key}: {said[key]!r:.80}")
    return said
