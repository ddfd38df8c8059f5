"""Logical axes to mesh axes: the only place where a mesh axis is named.

Parameters and activations name their dimensions once, where they are made ("embed", "heads",
"act_batch", ...). A preset says which of those are split over which axis of the mesh; whatever it
does not name is replicated.
"""

from __future__ import annotations

from jax.sharding import Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data",)

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

# Replicated parameters, rows of the batch split over all devices.
_DATA: Rules = (("act_batch", "data"),)

PRESETS: dict[str, Rules] = {"data": _DATA}


def batch_axes(rules: Rules) -> str | tuple[str, ...] | None:
    """The mesh axes over which the rows of a batch are split."""
    return dict(rules).get("act_batch")


def batch_sharding(mesh: Mesh, rules: Rules) -> NamedSharding:
    """How a [B, ...] field of a batch lies on the mesh."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(rules)))


def num_batch_shards(mesh: Mesh, rules: Rules) -> int:
    """Number of parts that the rows of a batch are split into."""
    axes = batch_axes(rules) or ()
    size = 1
    for axis in (axes,) if isinstance(axes, str) else axes:
        size *= mesh.shape[axis]
    return size
