"""Logical axes to mesh axes: the only place where a mesh axis is named.

Parameters and activations name their dimensions once, where they are made ("embed", "heads",
"act_batch", ...). The rules say which of those are split over which axis of the mesh; whatever they
do not name is replicated. There is one table for all meshes, as an axis of size 1 splits nothing,
with one more line where the sequence is split.

- data: rows of the batch; parameters are whole on every device.
- fsdp: rows of the batch, too, and every parameter with its optimizer state along its `embed` side
  (ZeRO: Rajbhandari et al. 2020); a layer is gathered when it is needed.
- tensor: heads, inner width of the MLP and vocabulary (Megatron-LM: Shoeybi et al. 2019); rows of
  the batch are whole. Under the preset fsdp_tensor_sequence it also splits the positions of what
  goes from block to block (Korthikanti et al. 2022, section 4.2.2): norms, dropout and what is kept
  of them, which would else be the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmjax import flops
from lmjax.batch import device_fields
from lmjax.config import MeshConfig
from lmjax.errors import UserError

# From the slowest links to the fastest: tensor exchanges activations within every layer.
MESH_AXES = ("data", "fsdp", "tensor")

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

# An axis of the mesh is used once per array, by the first rule that fits.
RULES: Rules = (
    ("act_batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("embed_out", "fsdp"),
    ("norm", "fsdp"),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", ("tensor", "fsdp")),  # what has no embed side: a bias
    ("mlp", "tensor"),
    ("act_mlp", "tensor"),
    ("act_vocab", "tensor"),
)

# Behind the others, so that heads, inner width and vocabulary keep the axis where they are.
_SEQUENCE: Rules = (("act_length", "tensor"),)

_BATCH_AXES = dict(RULES)["act_batch"]


def table(config: MeshConfig) -> Rules:
    """The rules of a preset."""
    return RULES + _SEQUENCE if config.preset == "fsdp_tensor_sequence" else RULES


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How a [B, ...] field of a batch lies on the mesh."""
    return NamedSharding(mesh, PartitionSpec(_BATCH_AXES))


def num_parts(mesh: Mesh, axes: str | tuple[str, ...] | None) -> int:
    """Number of parts of a dim that a `PartitionSpec` lays over these axes."""
    return math.prod(mesh.shape[a] for a in ((axes,) if isinstance(axes, str) else axes or ()))


def split(mesh: Mesh, rules: Rules = RULES) -> flops.Split:
    """Into how many parts the mesh splits rows, state, inner widths and, by `table`, positions."""
    tensor = mesh.shape["tensor"]
    return flops.Split(
        rows=num_parts(mesh, _BATCH_AXES),
        state=mesh.shape["fsdp"] * tensor,
        tensor=tensor,
        sequence=num_parts(mesh, dict(rules).get("act_length")),
    )


def state_shardings(named: Any, mesh: Mesh) -> Any:
    """Shardings of a tree of arrays that carry their logical axis names.

    Raises:
      UserError: a dim does not divide over the axis that splits it; naming all the numbers.
    """
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(named), mesh, RULES)
    is_boxed = lambda x: isinstance(x, nn.LogicallyPartitioned)
    for box, sharding in zip(
        jax.tree.leaves(named, is_leaf=is_boxed), jax.tree.leaves(shardings), strict=True
    ):
        if not is_boxed(box):
            continue
        for name, size, axes in zip(box.names, box.value.shape, sharding.spec, strict=False):
            parts = num_parts(mesh, axes)
            if size % parts:
                over = axes if isinstance(axes, str) else " x ".join(axes)
                raise UserError(
                    f"config.mesh splits {_WORDS.get(name, name)} over {over}: {size} does not "
                    f"divide by {parts}; set config.mesh so that it does"
                )
    return shardings


_WORDS = {
    "embed": "the width (config.model.hidden_size)",
    "heads": "attention heads (config.model.num_heads)",
    "kv_heads": "key/value heads (config.model.num_kv_heads, or num_heads)",
    "mlp": "the inner width (config.model.mlp_size)",
    "vocab": "the vocabulary (config.model.vocab_size)",
}


def bytes_on_device(arrays: Any, shardings: Any) -> int:
    """Bytes on each device of a tree of arrays, or of their shapes, that lies on a mesh."""
    leaves = zip(jax.tree.leaves(arrays), jax.tree.leaves(shardings), strict=True)
    return sum(
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in leaves
    )


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


def place(batch: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This host's rows -> the global device batch."""
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in device_fields(batch).items()
    }
