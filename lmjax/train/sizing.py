"""How much is computed at a time, and by which kernel of attention: as asked, or as it fits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lmjax import flops
from lmjax.config import Config, Kernel
from lmjax.errors import UserError
from lmjax.nn.kernels.spec import device_of
from lmjax.parallel import hosts
from lmjax.parallel import mesh as mesh_lib
from lmjax.parallel import rules as rules_lib
from lmjax.train import device as device_lib

# Positions whose logits a CPU makes at a time: fewer add up the matrix's gradient too often, more
# fall out of its caches (measured at vocabularies of 8,192 and 50,304).
_CPU_CHUNK = 256
_TPU_LANES = 128


def attention_kernel(config: Config, dtype: Any, device: jax.Device) -> Kernel:
    """The kernel that attention is asked to use on devices of this kind.

    Raises:
      UserError: the config wants one of another kind of device.
    """
    asked = config.train.attention
    if asked == "auto":
        if device.platform == "gpu":
            return "cudnn" if dtype == jnp.bfloat16 else "xla"
        return "splash" if device.platform == "tpu" else "blockwise"
    needed = device_of(asked)
    if needed not in (None, device.platform):
        raise UserError(
            f"config.train.attention={asked!r} is for a {needed.upper()}, and this is a "
            f"{device.platform.upper()}; take 'auto' or 'xla'"
        )
    return asked


def rows_of_micro_batch(config: Config, row: flops.Lengths, dtype: Any, mesh: Mesh) -> int:
    """Rows computed at a time over all devices: as the config says, or as many as fit.

    Raises:
      UserError: the batch does not divide over the mesh.
    """
    batch, split = config.train.global_batch_size, rules_lib.split(mesh)
    shards = split.rows
    if batch % shards:
        raise UserError(
            f"config.train.global_batch_size={batch} does not divide over the {shards} parts that "
            f"the mesh splits rows into; take a multiple of {shards}, fewer devices, or "
            "config.mesh.preset=tensor"
        )
    micro = config.train.micro_batch_size
    if micro == "auto":
        budget = hosts.agreed(device_lib.memory_budget(mesh_lib.device(mesh)))
        return flops.largest_micro_batch(config, row, budget, computing(config, dtype, mesh))
    if micro % shards:
        raise UserError(
            f"config.train.micro_batch_size={micro} does not divide over the {shards} parts that "
            f"the mesh splits rows into; take a multiple of {shards} or 'auto'"
        )
    return micro


def computing(config: Config, dtype: Any, mesh: Mesh) -> flops.Computing:
    """How the devices of a mesh compute, as far as memory goes."""
    device = mesh_lib.device(mesh)
    kernel = attention_kernel(config, dtype, device)
    plain = kernel == "xla" or (device_of(kernel) is not None and _is_beyond(kernel, config))
    return flops.Computing(
        dtype.itemsize,
        rules_lib.split(mesh, rules_lib.table(config.mesh)),
        keeps_scores=plain,
        chunk_positions=_CPU_CHUNK if device.platform == "cpu" else None,
        lanes=_TPU_LANES if device.platform == "tpu" and not plain else 1,
    )


def _is_beyond(kernel: Kernel, config: Config) -> bool:
    """Whether plain products take a device's kernel's place (`nn.kernels`), which keep scores."""
    alibi = config.model.position == "alibi" and kernel != "splash"
    return config.model.dropout > 0 or alibi


def chunk_of_loss(
    config: Config, row: flops.Lengths, dtype: Any, micro_rows: int, mesh: Mesh
) -> int | None:
    """As `flops.loss_chunk`, of micro-batches of so many rows over all devices."""
    rows_per_device = micro_rows // rules_lib.split(mesh).rows
    budget = hosts.agreed(device_lib.memory_budget(mesh_lib.device(mesh)))
    how = computing(config, dtype, mesh)
    return flops.loss_chunk(config, row, rows_per_device, budget, how)
