"""What training carries from step to step, and all that a checkpoint holds of it.

There is no random state: randomness is the seed folded with a name and the step. Whatever is
accumulated over steps (the sums behind the next row of metrics.jsonl, the tokens seen) lives here,
so that a resumed run goes on exactly where it was.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lmjax.parallel.rules import state_shardings
from lmjax.train import guard, loss
from lmjax.train import peaks as peaks_lib


@flax.struct.dataclass
class TrainState:
    """One training state.

    Attributes:
      step: int32 scalar, updates done.
      params: nested dict of float32 arrays.
      opt_state: optax state.
      window: sums of `loss.sums` since the last row of metrics, float32 scalars, and vectors [K]
        where there are K > 1 sources.
      tokens: uint32 [2] or [2, K], real tokens seen as (high, low) words of a 64-bit count.
      peaks: the worst step since the last row, as `peaks.zeros` has it.
      guard: what decides whether updates are made, as `guard.zeros` has it.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    window: dict[str, jax.Array]
    peaks: peaks_lib.Peaks
    tokens: jax.Array
    guard: guard.Guard


def add_tokens(tokens: jax.Array, more: jax.Array) -> jax.Array:
    """64-bit addition on two uint32 words (JAX has no 64-bit integers by default)."""
    high, low = tokens[0], tokens[1]
    new_low = low + more.astype(jnp.uint32)
    return jnp.stack([high + (new_low < low).astype(jnp.uint32), new_low])


def token_counts(tokens: jax.Array) -> list[int]:
    """The counts that the two words stand for: of each source, or the only one."""
    high, low = np.asarray(tokens).reshape(2, -1).tolist()
    return [(a << 32) + b for a, b in zip(high, low, strict=True)]


def total_tokens(tokens: jax.Array) -> int:
    """The same over all sources."""
    return sum(token_counts(tokens))


@dataclasses.dataclass(frozen=True)
class Counted:
    """What the shapes of the counters depend on."""

    num_sources: int = 1
    skip_spikes: bool = False

    def zeros(self) -> dict[str, Any]:
        """The counters at their start, by the names of their fields."""
        of_each = () if self.num_sources == 1 else (self.num_sources,)
        return {
            "window": loss.zeros(self.num_sources),
            "peaks": peaks_lib.zeros(),
            "tokens": jnp.zeros((2, *of_each), jnp.uint32),
            "guard": guard.zeros(self.skip_spikes),
        }


_ONE_SOURCE = Counted()


def create(
    optimizer: optax.GradientTransformation, params: Any, counted: Counted = _ONE_SOURCE
) -> TrainState:
    """A state at step 0; where parameters carry their logical axis names, the moments do, too."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        **counted.zeros(),
    )


_INIT = 0  # name of the initialisation's random stream; `step.py` names the others


def _params(model: nn.Module, batch: dict, seed: jax.Array) -> Any:
    return model.init(jax.random.fold_in(jax.random.key(seed), _INIT), batch)["params"]


def named_params(model: nn.Module, batch: dict[str, jax.ShapeDtypeStruct]) -> Any:
    """Shapes of the parameters, each with its logical axis names."""
    return jax.eval_shape(lambda: _params(model, _zeros(batch), 0))


def abstract_params(
    model: nn.Module, batch: dict[str, jax.ShapeDtypeStruct], mesh: Mesh
) -> tuple[Any, Any]:
    """As `abstract_state`, of the parameters alone."""
    named = named_params(model, batch)
    return nn.unbox(named), state_shardings(named, mesh)


def abstract_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    batch: dict[str, jax.ShapeDtypeStruct],
    mesh: Mesh,
    counted: Counted = _ONE_SOURCE,
) -> tuple[TrainState, TrainState]:
    """Shapes of the state, and the sharding of each leaf, before anything is allocated.

    Raises:
      UserError: a dim does not divide over its axis of the mesh.
    """
    named = jax.eval_shape(lambda: create(optimizer, _params(model, _zeros(batch), 0), counted))
    return nn.unbox(named), state_shardings(named, mesh)


def with_counters(
    abstract: TrainState, shardings: TrainState, counted: Counted
) -> tuple[TrainState, TrainState]:
    """What `abstract_state` gives with other counters."""
    counters = jax.eval_shape(counted.zeros)
    replicated = jax.tree.map(lambda _: shardings.tokens, counters)
    return dataclasses.replace(abstract, **counters), dataclasses.replace(shardings, **replicated)


def init(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    batch: dict[str, jax.ShapeDtypeStruct],
    shardings: TrainState,
    seed: int,
    counted: Counted = _ONE_SOURCE,
) -> TrainState:
    """A fresh state, born sharded: no device ever holds a parameter that is not its own."""
    make = jax.jit(
        lambda seed: nn.unbox(create(optimizer, _params(model, _zeros(batch), seed), counted)),
        out_shardings=shardings,
    )
    return make(seed)


def init_around(
    optimizer: optax.GradientTransformation,
    params: Any,
    shardings: TrainState,
    counted: Counted = _ONE_SOURCE,
) -> TrainState:
    """A state at step 0 with parameters that are there already; they are used up."""
    make = jax.jit(
        lambda params: create(optimizer, params, counted),
        out_shardings=shardings,
        donate_argnums=0,
    )
    return make(params)


def _zeros(batch: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    return {name: jnp.zeros(field.shape, field.dtype) for name, field in batch.items()}
