"""The weight table: which tensor of a published checkpoint is which parameter, read both ways.

A row names one of their tensors and the parameters it holds, and how the dims of one are those of
the other: "(h k) d -> d h k" says that their matrix [heads * width, hidden] is our kernel
[hidden, heads, width]. Where a tensor holds several parameters, our side begins with `p`, which
counts them: "(p h k) d -> p d h k". Sizes are those of our parameters, so that the shape that
their tensor must have follows. `{i}` is the number of a layer; where that layer's parameters are,
alone or as a slice of a stack, is for the caller to say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Place = tuple[str, int | None]  # path of a parameter, and which slice of its first dim


@dataclass(frozen=True)
class Row:
    """One of their tensors.

    Attributes:
      theirs: its name.
      ours: path of the parameter, or of the several parameters it holds.
      dims: their dims -> our dims; one side alone where both are the same.
      skip: leading rows of ours that theirs has not.
    """

    theirs: str
    ours: str | tuple[str, ...]
    dims: str
    skip: int = 0


def dense(theirs: str, ours: str, inputs: str, outputs: str) -> list[Row]:
    """Rows of a torch `Linear`, whose weight is [outputs, inputs]."""
    return [
        Row(f"{theirs}.weight", f"{ours}/kernel", f"({outputs}) ({inputs}) -> {inputs} {outputs}"),
        Row(f"{theirs}.bias", f"{ours}/bias", f"({outputs}) -> {outputs}"),
    ]


def norm(theirs: str, ours: str) -> list[Row]:
    """Rows of a norm."""
    return [
        Row(f"{theirs}.weight", f"{ours}/scale", "d"),
        Row(f"{theirs}.bias", f"{ours}/bias", "d"),
    ]


@dataclass(frozen=True)
class Entry:
    """A row for one layer: their tensor, and where its parts are with us.

    Attributes:
      name, shape: of their tensor.
      places: of our parameters.
      row: where it comes from.
      part: shape of each of ours.
    """

    name: str
    shape: tuple[int, ...]
    places: tuple[Place, ...]
    row: Row
    part: tuple[int, ...]

    def to_ours(self, tensor: np.ndarray) -> list[np.ndarray]:
        """Their tensor -> our parameters (views of it where they can be)."""
        left, right, sizes = self._axes()
        x = tensor.reshape([sizes[a] for a in left]).transpose([left.index(a) for a in right])
        if self.row.skip:
            x = np.concatenate([np.zeros((self.row.skip, *x.shape[1:]), x.dtype), x])
        return list(x) if right[0] == "p" else [x]

    def to_theirs(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Our parameters -> their tensor; the inverse of `to_ours`."""
        left, right, _ = self._axes()
        x = np.stack(parts) if right[0] == "p" else parts[0][self.row.skip :]
        return x.transpose([right.index(a) for a in left]).reshape(self.shape)

    def _axes(self) -> tuple[list[str], list[str], dict[str, int]]:
        left, right, sizes = _parse(self.row, self.part)
        return [a for group in left for a in group], right, sizes


def _parse(row: Row, part: tuple[int, ...]) -> tuple[list[list[str]], list[str], dict[str, int]]:
    """Groups of axes on their side, axes on ours, and the size of each."""
    theirs, _, ours = row.dims.partition(" -> ")
    right = (ours or theirs).split()
    named = right[1:] if right[0] == "p" else right
    if len(named) != len(part):
        raise ValueError(f"{row.theirs}: {row.dims!r} does not fit a parameter of shape {part}")
    sizes = dict(zip(named, part, strict=True)) | {"p": len(_paths(row))}
    if row.skip:
        sizes[right[0]] -= row.skip
    groups = re.findall(r"\(([^)]*)\)|(\S+)", theirs)
    left = [[a for a in (several or one).split() if a != "1"] for several, one in groups]
    return left, right, sizes


def _paths(row: Row) -> tuple[str, ...]:
    return (row.ours,) if isinstance(row.ours, str) else row.ours


def expand(
    rows: Iterable[Row],
    leaves: Mapping[str, tuple[int, ...]],
    layers: Mapping[str, Sequence[Place]],
) -> list[Entry]:
    """A table for one model: a row for each layer, without those whose parameters it has not.

    Args:
      rows: the table; paths of parameters in layers begin with "NAME/{i}".
      leaves: path -> shape of every parameter.
      layers: NAME -> where each layer's parameters are.

    Raises:
      ValueError: a parameter has no row, or two; the table is wrong.
    """
    entries = []
    for row in rows:
        paths = _paths(row)
        stack = re.match(r"(\w+)/\{i\}", paths[0])
        places = layers.get(stack[1], ()) if stack else [("", None)]
        for i, (place, index) in enumerate(places):
            here = [p.replace(stack[0], place) if stack else p for p in paths]
            found = [p in leaves for p in here]
            if not all(found):
                if any(found):
                    raise ValueError(f"{row.theirs}: some of {here} are no parameters")
                continue
            part = leaves[here[0]][0 if index is None else 1 :]
            left, _, sizes = _parse(row, part)
            shape = tuple(math.prod(sizes[a] for a in group) for group in left)
            name = row.theirs.replace("{i}", str(i))
            entries.append(Entry(name, shape, tuple((p, index) for p in here), row, part))
    _check(entries, leaves)
    return entries


def _check(entries: Sequence[Entry], leaves: Mapping[str, tuple[int, ...]]) -> None:
    covered: dict[str, list[int | None]] = {}
    for entry in entries:
        for path, index in entry.places:
            covered.setdefault(path, []).append(index)
    for path, shape in leaves.items():
        got = covered.get(path, [])
        if got != [None] and sorted(i for i in got if i is not None) != list(range(shape[0])):
            raise ValueError(f"parameter {path} {shape} is not covered once by the table: {got}")
