"""A stack of blocks: prefix + unit x n + suffix.

The unit is the shortest run of blocks that repeats; its parameters are stacked [n, ...] and a scan
goes over them, so that the program's size does not grow with depth. Blocks that do not repeat
stand before or behind. Unrolling is the same scan with `unroll=n`: the same parameters.

Shape suffixes: B rows, T length, D hidden_size, S cache slots, G key/value heads, K head width.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.model_config import ModelConfig
from lmjax.nn import linear
from lmjax.nn.attention import AttentionSpec, Context, Kept, put
from lmjax.nn.block import Block, BlockSpec, Cache
from lmjax.nn.kernels.spec import PLAINLY, How
from lmjax.nn.position import Rope

Remat = Literal["none", "dots", "full"]
LayerCaches = dict[str, Any]

# What the backward pass finds instead of recomputing it, per unit.
_SAVED = {
    "dots": jax.checkpoint_policies.save_only_these_names(linear.PRODUCT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Order of the blocks: prefix, then `num_units` times unit, then suffix."""

    unit: tuple[BlockSpec, ...]
    num_units: int
    prefix: tuple[BlockSpec, ...] = ()
    suffix: tuple[BlockSpec, ...] = ()


def layout(config: ModelConfig, how: How = PLAINLY) -> Layout:
    """The layout of a model's stack (of the decoder, where there are two)."""
    causal, cross = config.architecture != "encoder", config.architecture == "encoder_decoder"
    return _layout(config, how, config.num_layers, causal, cross)


def encoder_layout(config: ModelConfig, how: How = PLAINLY) -> Layout:
    """The layout of the encoder of an encoder-decoder."""
    return _layout(config, how, config.encoder_layers, causal=False, cross=False)


def _layout(config: ModelConfig, how: How, num_layers: int, causal: bool, cross: bool) -> Layout:
    blocks = [
        BlockSpec(
            _attention(config, how, causal, config.is_local(i)),
            cross,
            attention_norm=config.first_attention_norm or i > 0,
        )
        for i in range(num_layers)
    ]
    first = 0 if config.first_attention_norm else 1
    period = (config.global_every or 1) if config.window is not None else 1
    num_units, rest = divmod(num_layers - first, period)
    return Layout(
        unit=tuple(blocks[first : first + period]) if num_units else (),
        num_units=num_units,
        prefix=tuple(blocks[:first]),
        suffix=tuple(blocks[num_layers - rest :]),
    )


def _attention(config: ModelConfig, how: How, causal: bool, local: bool) -> AttentionSpec:
    rope = None
    if config.position == "rope":
        theta = config.rope_local_theta if local and config.rope_local_theta else config.rope_theta
        rope = Rope(theta, config.rope_factor, config.rope_original_positions)
    window = config.window if local else None
    return AttentionSpec(causal, window, rope, config.position == "alibi", how)


def init_caches(
    config: ModelConfig,
    layout: Layout,
    batch_size: int,
    max_length: int,
    dtype: jnp.dtype,
    memory_length: int | None = None,
) -> LayerCaches:
    """Empty keys and values of every layer, in the tree that `Stack` takes and returns.

    Args:
      config, layout: of the stack.
      batch_size: rows.
      max_length: slots for its own tokens.
      dtype: compute type.
      memory_length: length of the encoder's result, whose keys and values are kept from the call on
        that has it; None: they are not.
    """

    def zeros(*shape: int) -> jax.Array:
        names = (*(None for _ in shape[4:]), "act_batch", "kv_heads", None, None)
        return nn.with_logical_constraint(jnp.zeros(shape, dtype), names)

    def kept(*stacked: int, length: int) -> Kept:
        heads, width = config.kv_heads, config.head_width
        return Kept(
            zeros(*stacked, batch_size, heads, length, width),
            zeros(*stacked, batch_size, heads, width, length),
        )

    def empty(*stacked: int) -> Cache:
        own = kept(*stacked, length=max_length)
        return Cache(own, memory_length and kept(*stacked, length=memory_length))

    caches: LayerCaches = {f"prefix_{i}": empty() for i in range(len(layout.prefix))}
    if layout.num_units:
        caches["unit"] = {str(i): empty(layout.num_units) for i in range(len(layout.unit))}
    return caches | {f"suffix_{i}": empty() for i in range(len(layout.suffix))}


def _filled(caches: LayerCaches, new: LayerCaches, slot: jax.Array) -> LayerCaches:
    """The caches with what a call has made from a slot on."""

    def fill(old: Cache, new: Cache) -> Cache:
        memory = old.memory if new.memory is None else new.memory
        return Cache(put(old.own, new.own, slot), memory)

    return jax.tree.map(fill, caches, new, is_leaf=lambda node: isinstance(node, Cache))


class Unit(nn.Module):
    """The blocks of one repetition, in the form a scan takes."""

    config: ModelConfig
    specs: tuple[BlockSpec, ...]
    dtype: jnp.dtype
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        caches: LayerCaches | None,
        context: Context,
    ) -> tuple[jax.Array, LayerCaches | None]:
        """(x_BTD, caches by slot, ...) -> (x_BTD, what is to be put in them)."""
        x_BTD = jax.lax.optimization_barrier(x_BTD)
        new_caches = {}
        for slot, spec in enumerate(self.specs):
            name = str(slot)
            block = Block(self.config, spec, self.dtype, self.deterministic, name=name)
            cache = None if caches is None else caches[name]
            x_BTD, new_caches[name] = block(x_BTD, context, cache)
        x_BTD = jax.lax.optimization_barrier(x_BTD)
        return x_BTD, None if caches is None else new_caches


class Stack(nn.Module):
    """All blocks of a model.

    Attributes:
      config, dtype: of the blocks.
      layout: which blocks, in which order.
      remat: what the backward pass recomputes: 'none', all but matrix products ('dots') or 'full'.
      unroll: how many units one iteration of the scan holds; layout.num_units unrolls it all.
    """

    config: ModelConfig
    layout: Layout
    dtype: jnp.dtype
    remat: Remat
    unroll: int

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        context: Context,
        caches: LayerCaches | None = None,
        *,
        deterministic: bool = True,
    ) -> tuple[jax.Array, LayerCaches | None]:
        """x_BTD -> (x_BTD, the caches of all layers (see `init_caches`) with x in them or None)."""
        new_caches, single = {}, Block
        if self.remat != "none":
            single = nn.remat(Block, policy=_SAVED[self.remat])

        def block(x_BTD: jax.Array, name: str, spec: BlockSpec) -> jax.Array:
            module = single(self.config, spec, self.dtype, deterministic, name=name)
            cache = None if caches is None else caches[name]
            x_BTD, new_caches[name] = module(x_BTD, context, cache)
            return x_BTD

        for i, spec in enumerate(self.layout.prefix):
            x_BTD = block(x_BTD, f"prefix_{i}", spec)
        if self.layout.num_units:
            unit_caches = None if caches is None else caches["unit"]
            x_BTD, new_caches["unit"] = self._scanned_unit(deterministic)(
                x_BTD, unit_caches, context
            )
        for i, spec in enumerate(self.layout.suffix):
            x_BTD = block(x_BTD, f"suffix_{i}", spec)
        if caches is None:
            return x_BTD, None
        # Written at once, in place: layer by layer, the scan would copy all of them at each step.
        return x_BTD, _filled(caches, new_caches, context.length)

    def _scanned_unit(self, deterministic: bool) -> nn.Module:
        unit = Unit
        if self.remat != "none":
            # Inside a loop nothing can be merged with the forward pass; unrolled, it must be kept
            # from being merged.
            unit = nn.remat(unit, policy=_SAVED[self.remat], prevent_cse=self.unroll > 1)
        scanned = nn.scan(
            unit,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),
            length=self.layout.num_units,
            unroll=self.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        return scanned(self.config, self.layout.unit, self.dtype, deterministic, name="unit")
