"""What every kernel of attention is told."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp

from lmjax.config import Kernel
from lmjax.nn.position import Rope

_ONLY_ON = {"cudnn": "gpu", "cudnn_offsets": "gpu", "splash": "tpu", "flash": "tpu"}


def device_of(kernel: Kernel) -> str | None:
    """The one kind of device that has a kernel; None: all have it."""
    return _ONLY_ON.get(kernel)


def kernels_of(platform: str) -> list[Kernel]:
    """Those that a kind of device has."""
    return [kernel for kernel in get_args(Kernel) if device_of(kernel) in (None, platform)]


@dataclasses.dataclass(frozen=True)
class How:
    """How attention is computed, wherever its result is the same.

    Attributes:
      kernel: is taken where it can do what a layer wants (`kernels.dispatch`).
      one_segment: whether every row is known to hold one segment, and padding behind it.
    """

    kernel: Kernel = "xla"
    one_segment: bool = False


PLAINLY = How()


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """What a layer's attention may look at; static, so that a kernel can be chosen by it.

    Attributes:
      causal: only keys at no later position.
      window: only keys at most window // 2 positions away; None: any distance.
      rope: how queries and keys are turned by their positions; None: not.
      alibi: whether scores fall with distance, by each head's own slope.
      how: the kernel that is wanted.
    """

    causal: bool
    window: int | None = None
    rope: Rope | None = None
    alibi: bool = False
    how: How = PLAINLY


class Tokens(NamedTuple):
    """What the mask needs to know of a sequence: int32 [B, T] each."""

    segment_ids: jax.Array
    positions: jax.Array


class KeyValues(NamedTuple):
    """Keys and values of one layer, in the compute type."""

    k_BSGK: jax.Array
    v_BSGK: jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["key"], meta_fields=["rate"])
@dataclasses.dataclass(frozen=True)
class Dropout:
    """Dropout of attention probabilities (Srivastava et al. 2014; inverted).

    Attributes:
      rate: share that is dropped.
      key: of the random numbers.
    """

    rate: float
    key: jax.Array

    def of(self, p: jax.Array) -> jax.Array:
        """What is left, larger by what is dropped."""
        stays = jax.random.bernoulli(self.key, 1 - self.rate, p.shape)
        return jnp.where(stays, p / (1 - self.rate), 0)
