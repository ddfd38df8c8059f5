"""Norms of gradients, updates and parameters, layer by layer and part by part."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from lmjax.model_config import ModelConfig
from lmjax.nn import stack
from lmjax.train.step import Explained

_STACKS = ("stack", "encoder")
UNUSUAL = 3.0  # times what it was in the steps before


@dataclass(frozen=True)
class Norms:
    """Of one part of one layer, before the step.

    Attributes:
      layer: "embed", "layer 0", "encoder layer 0", ...
      part: within it: "attention", "mlp", "norms", ...
      gradient: before clipping.
      update: that the optimizer makes of it.
      parameter: of the parameters themselves.
      times: the gradient's, of its median in the steps before; None: there are none.
    """

    layer: str
    part: str
    gradient: float
    update: float
    parameter: float
    times: float | None = None

    @property
    def is_unusual(self) -> bool:
        """Whether the gradient is far above what it was, or no number."""
        grown = self.times is not None and self.times > UNUSUAL
        return grown or not math.isfinite(self.gradient)


def of_step(
    config: ModelConfig, explained: Explained, before: Sequence[Explained] = ()
) -> list[Norms]:
    """The norms of all parts, in the order in which a row passes them.

    Args:
      config: of the model.
      explained: of the step.
      before: of steps before it.
    """
    found = [_squares(config, tree) for tree in explained[1:]]
    usual = [_squares(config, each.gradient) for each in before]
    rows = []
    for key in sorted(found[0], key=_order):
        gradient, update, parameter = (math.sqrt(squares[key]) for squares in found)
        times = None
        if usual:
            median = float(np.median([math.sqrt(squares[key]) for squares in usual]))
            times = gradient / median if median else None
        rows.append(Norms(*key, gradient, update, parameter, times))
    return rows


def total(norms: Sequence[float]) -> float:
    """The norm of all of which these are the norms of parts."""
    return math.sqrt(sum(norm * norm for norm in norms))


def by_layer(rows: Sequence[Norms]) -> list[Norms]:
    """The same of whole layers; `times` is that of its part with the largest."""
    layers: dict[str, list[Norms]] = defaultdict(list)
    for row in rows:
        layers[row.layer].append(row)
    return [
        Norms(
            layer,
            "",
            *(total([getattr(x, name) for x in parts]) for name in _FIELDS),
            max((x.times for x in parts if x.times is not None), default=None),
        )
        for layer, parts in layers.items()
    ]


_FIELDS = ("gradient", "update", "parameter")


def _squares(config: ModelConfig, norms) -> dict[tuple[str, str], float]:
    """{(layer, part): sum of squares} of a tree of norms."""
    squares: dict[tuple[str, str], float] = defaultdict(float)
    for path, values in jax.tree_util.tree_leaves_with_path(norms):
        names = [key.key for key in path]
        for unit, value in enumerate(np.atleast_1d(np.asarray(values, np.float64))):
            squares[_place(config, names, unit)] += float(value) ** 2
    return squares


def _place(config: ModelConfig, names: Sequence[str], unit: int) -> tuple[str, str]:
    """(layer, part) of a parameter, and which of its stacked layers is meant."""
    if names[0] not in _STACKS:
        return names[0], names[1] if len(names) > 1 else names[0]
    layout = stack.encoder_layout(config) if names[0] == "encoder" else stack.layout(config)
    kind, _, number = names[1].partition("_")
    if kind == "unit":
        index, part = len(layout.prefix) + unit * len(layout.unit) + int(names[2]), names[3]
    else:
        in_front = len(layout.prefix) + layout.num_units * len(layout.unit)
        index, part = int(number) + (in_front if kind == "suffix" else 0), names[2]
    side = "encoder " if names[0] == "encoder" else "decoder "
    side = side if config.architecture == "encoder_decoder" else ""
    return f"{side}layer {index}", "norms" if part.endswith("_norm") else part


def _order(key: tuple[str, str]) -> tuple[int, int, str, str]:
    """Embeddings, the encoder, the decoder or only stack, what stands behind it."""
    layer, part = key
    name, _, number = layer.rpartition(" ")
    if name:
        return 1 if name == "encoder layer" else 3, int(number), layer, part
    return 0 if "embed" in layer else 2 if layer.startswith("encoder") else 4, 0, layer, part
