"""Logical axes to mesh axes: the only place where a mesh axis is named.

Parameters and activations name their dimensions once, where they are made ("embed", "heads",
"act_batch", ...). A preset says which of those are split over which axis of the mesh; whatever it
does not name is replicated.
"""

from __future__ import annotations

import numpy as np
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


def host_rows(sharding: NamedSharding, micro_rows: int, num_micro: int) -> np.ndarray:
    """Rows of the global batch that this host's devices hold, micro-batch by micro-batch.

    Args:
      sharding: of a [micro_rows, ...] field.
      micro_rows: rows of one micro-batch over all devices; micro-batch m has rows
        m * micro_rows ... (m + 1) * micro_rows - 1 of the global batch.
      num_micro: micro-batches of a step.

    Returns:
      int64 [num_micro * rows per micro-batch on this host].
    """
    slices = {
        index[0].indices(micro_rows)[:2]
        for index in sharding.addressable_devices_indices_map((micro_rows,)).values()
    }
    local = np.concatenate([np.arange(start, stop) for start, stop in sorted(slices)])
    return (np.arange(num_micro)[:, None] * micro_rows + local).ravel()
