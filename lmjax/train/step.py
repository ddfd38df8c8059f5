"""One optimizer step, pure and jitted, over one or several micro-batches.

    gradients(params, micro-batch) -> sums of gradients and of metrics
    update(state, those sums)      -> the next state

Gradients are of the *summed* loss; `update` divides once by the total weight of the step, so
neither the number of micro-batches nor of devices enters the result. A single micro-batch runs both
parts as one compiled function; several run `gradients` once each, so that a slow device can report
between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from lmjax import batch as batch_lib
from lmjax.optim import dims
from lmjax.optim.schedule import Schedule
from lmjax.parallel import rules
from lmjax.train import guard as guard_lib
from lmjax.train import loss
from lmjax.train import peaks as peaks_lib
from lmjax.train.state import TrainState, add_tokens

# `loss.sums` of a model: (params, batch, tables, dropout_key) -> (to differentiate, to report).
Sums = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]

_DROPOUT = 1  # name of this random stream; `state.py` has that of the initialisation


@flax.struct.dataclass
class Accumulated:
    """Sums over the micro-batches of a step."""

    grads: Any
    sums: dict[str, jax.Array]
    tokens: jax.Array


class Part(NamedTuple):
    """One program of a step.

    Attributes:
      name: in words.
      lowered: to be compiled.
      runs: in a step.
      held: bytes of what lies on each device while it runs, by kind.
      beside: what of that is none of its arguments.
    """

    name: str
    lowered: jax.stages.Lowered
    runs: int
    held: Mapping[str, int]
    beside: frozenset[str] = frozenset()


class Explained(NamedTuple):
    """What a step is made of.

    Attributes:
      nats: what each prediction costs, float32 [B, P], or a list of that for each micro-batch.
      gradient, update, parameter: trees of the norms of every parameter before the step, of its
        gradient before clipping and of the update that the optimizer makes of it: float32 scalars,
        or [layers] where it is a stack.
    """

    nats: Any
    gradient: Any
    update: Any
    parameter: Any


class TrainStep:
    """(state, micro-batches, fresh window?) -> (state, metrics); see the module's docstring.

    metrics: `loss` of this step, `window` sums and `peaks` since the last row, `grad_norm`
    before clipping, `learning_rate`, `tokens` seen as two words, `guard`'s counts of updates that
    were not made; all on the device, and nothing waits for them.
    """

    def __init__(
        self,
        sums: Sums,
        optimizer: optax.GradientTransformation,
        schedule: Schedule,
        tables: loss.Tables,
        state_shardings: TrainState,
        batch_sharding: NamedSharding,
        *,
        seed: int,
        prng: str,
        num_sources: int,
        axes: Any,
        judge: guard_lib.Judge = guard_lib.judge,
        xla_options: Mapping[str, Any] | None = None,
    ):
        self._sums, self._optimizer, self._schedule = sums, optimizer, schedule
        self._tables, self._seed, self._prng = tables, seed, prng
        self._num_sources, self._judge, self._axes = num_sources, judge, axes
        self._shardings, self._rows = state_shardings, batch_sharding
        replicated = NamedSharding(batch_sharding.mesh, PartitionSpec())
        # A prefix of the tree: one sharding stands for all scalars below it.
        total = Accumulated(state_shardings.params, replicated, replicated)
        params, state, rows = state_shardings.params, state_shardings, batch_sharding
        self.zeros = jax.jit(self._nothing, in_shardings=(params,), out_shardings=total)
        compiled = partial(jax.jit, donate_argnums=0, compiler_options=dict(xla_options or {}))
        self._next = compiled(
            self._accumulate,
            in_shardings=(total, params, replicated, replicated, rows, replicated),
            out_shardings=total,
        )
        self.update = compiled(
            self._apply,
            in_shardings=(state, total, replicated),
            out_shardings=(state, replicated),
        )
        self._fused = compiled(
            self._whole,
            in_shardings=(state, replicated, rows, replicated),
            out_shardings=(state, replicated),
        )
        self._next_each = compiled(
            self._accumulate_each,
            in_shardings=(total, params, replicated, replicated, rows, replicated),
            out_shardings=(total, rows),
        )
        self._norms = jax.jit(self._norms_of, in_shardings=(state, total), out_shardings=replicated)

    def __call__(
        self,
        state: TrainState,
        micro_batches: Sequence[dict[str, jax.Array]],
        fresh: bool,
        on_micro: Callable[[int, dict[str, jax.Array]], None] = lambda index, sums: None,
    ) -> tuple[TrainState, dict[str, Any]]:
        """One step.

        Args:
          state: donated.
          micro_batches: device batches of equal shape that make up the global batch.
          fresh: whether the window of metrics starts anew with this step.
          on_micro: told (number done, their sums) of several micro-batches, once the next is
            launched.
        """
        if len(micro_batches) == 1:
            return self._fused(state, self._tables, micro_batches[0], fresh)
        total = self.zeros(state.params)
        for i, batch in enumerate(micro_batches):
            # A copy, since the sums are donated; read while the next micro-batch runs.
            before = jax.tree.map(jnp.copy, total.sums)
            total = self._next(total, state.params, state.step, self._tables, batch, i)
            if i:
                on_micro(i, before)
        return self.update(state, total, fresh)

    def explain(
        self, state: TrainState, micro_batches: Sequence[dict[str, jax.Array]]
    ) -> Explained:
        """What the next step does, and does not do here: `state` is left as it is.

        It is computed by programs of its own, as the step but not to the last bit, and takes a
        second copy of the gradients.
        """
        total, nats = self.zeros(state.params), []
        for i, batch in enumerate(micro_batches):
            total, nats_BP = self._next_each(
                total, state.params, state.step, self._tables, batch, i
            )
            nats.append(nats_BP)
        return Explained(nats, *self._norms(state, total))

    def lower(self, state: TrainState, batch: dict[str, jax.Array]) -> jax.stages.Lowered:
        """The program of a step of one micro-batch; arguments may be shapes alone."""
        return self._fused.lower(state, self._tables, batch, False)

    def parts(
        self, state: TrainState, batch: dict[str, jax.Array], num_micro: int
    ) -> Iterator[Part]:
        """The programs of a step of so many micro-batches; arguments may be shapes alone."""
        held = {
            "parameters": rules.bytes_on_device(state.params, self._shardings.params),
            "optimizer": rules.bytes_on_device(state.opt_state, self._shardings.opt_state),
            "batch": rules.bytes_on_device(batch, dict.fromkeys(batch, self._rows)),
        }
        if num_micro == 1:
            yield Part("step", self.lower(state, batch), 1, held)
            return
        total = jax.eval_shape(self.zeros, state.params)
        held["gradients"] = rules.bytes_on_device(total.grads, self._shardings.params)
        arguments = (total, state.params, state.step, self._tables, batch, 0)
        accumulate = self._next.lower(*arguments)
        yield Part("micro-batch", accumulate, num_micro, held, frozenset({"optimizer"}))
        apply = self.update.lower(state, total, False)
        yield Part("update", apply, 1, held, frozenset({"batch"}))

    def memory(
        self, state: TrainState, micro_batches: Sequence[dict[str, jax.Array]]
    ) -> int | None:
        """Bytes that a step takes on each device, by the compiler's account; None: it gives none.

        Compiles anew what was compiled for the same arguments.
        """
        part = next(self.parts(state, micro_batches[0], len(micro_batches)))
        found = part.lowered.compile().memory_analysis()
        if found is None:
            return None
        rest = sum(part.held[name] for name in part.beside)
        shared = found.alias_size_in_bytes
        given = found.argument_size_in_bytes + found.output_size_in_bytes - shared
        return rest + given + found.temp_size_in_bytes

    def _gradients(self, params, step, tables, batch, index, **reporting) -> Accumulated:
        key = jax.random.fold_in(jax.random.key(self._seed, impl=self._prng), _DROPOUT)
        key = jax.random.fold_in(jax.random.fold_in(key, step), index)
        grads, sums = jax.grad(
            lambda p: self._sums(p, batch, tables, dropout_key=key, **reporting), has_aux=True
        )(params)
        return Accumulated(grads, sums, self._tokens(batch))

    def _tokens(self, batch) -> jax.Array:
        """Real tokens of a micro-batch, int32: in all, or [K] of several sources."""
        if self._num_sources == 1:
            return batch_lib.num_real_tokens(batch)
        of_rows_B = batch_lib.num_real_tokens(batch, axis=1)
        return loss.by_source(of_rows_B, batch, self._num_sources)

    def _nothing(self, params) -> Accumulated:
        tokens = jnp.zeros(() if self._num_sources == 1 else (self._num_sources,), jnp.int32)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Accumulated(zeros, loss.zeros(self._num_sources), tokens)

    def _accumulate(self, total, params, step, tables, batch, index) -> Accumulated:
        return jax.tree.map(jnp.add, total, self._gradients(params, step, tables, batch, index))

    def _accumulate_each(
        self, total, params, step, tables, batch, index
    ) -> tuple[Accumulated, jax.Array]:
        more = self._gradients(params, step, tables, batch, index, each=True)
        nats_BP = more.sums.pop(loss.EACH)
        return jax.tree.map(jnp.add, total, more), nats_BP

    def _norms_of(self, state: TrainState, total: Accumulated) -> tuple[Any, Any, Any]:
        _, grads = _means(total)
        updates, _ = self._optimizer.update(grads, state.opt_state, state.params)
        norms = partial(dims.map_dims, dims.norm, dims.tree_dims(self._axes))
        return norms(grads), norms(updates), norms(state.params)

    def _apply(self, state: TrainState, total: Accumulated, fresh) -> tuple[TrainState, dict]:
        weight, grads = _means(total)
        value, norm = total.sums["nats"] / weight, optax.tree.norm(grads)
        made, guard = self._judge(state.guard, value, norm)
        updates, opt_state = self._optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        keep = lambda new, old: jnp.where(made, new, old)
        window = jax.tree.map(
            lambda old, new: jnp.where(fresh, 0.0, old) + jnp.where(made, new, 0.0),
            state.window,
            total.sums,
        )
        tokens = add_tokens(state.tokens, total.tokens)
        worst = {"loss": value, "grad_norm": norm}
        peaks = peaks_lib.updated(state.peaks, worst, state.step + 1, made, fresh)
        metrics = {
            "loss": value,
            "window": window,
            "peaks": peaks,
            "grad_norm": norm,
            # The optimizer's own count stands still where no update is made.
            "learning_rate": self._schedule(state.step - state.guard["skipped"]),
            "tokens": tokens,
            "guard": {name: guard[name] for name in ("skipped", "in_a_row")},
        }
        return TrainState(
            step=state.step + 1,
            params=jax.tree.map(keep, params, state.params),
            opt_state=jax.tree.map(keep, opt_state, state.opt_state),
            window=window,
            peaks=peaks,
            tokens=tokens,
            guard=guard,
        ), metrics

    def _whole(self, state: TrainState, tables, batch, fresh) -> tuple[TrainState, dict]:
        return self._apply(
            state, self._gradients(state.params, state.step, tables, batch, 0), fresh
        )


def _means(total: Accumulated) -> tuple[jax.Array, Any]:
    """The weight of a step, and its gradients."""
    weight = jnp.maximum(total.sums["weight"], 1.0)
    return weight, jax.tree.map(lambda g: g / weight, total.grads)


def make_predict_step(
    model: nn.Module, params_shardings: Any, batch_sharding: NamedSharding
) -> Callable[[Any, dict[str, jax.Array]], jax.Array]:
    """(params, batch) -> logits of its predictions, float32 [B, P, classes]."""
    return jax.jit(
        lambda params, batch: model.apply({"params": params}, batch),
        in_shardings=(params_shardings, batch_sharding),
        out_shardings=batch_sharding,
    )


def make_eval_step(
    sums: Sums,
    tables: loss.Tables,
    params_shardings: Any,
    batch_sharding: NamedSharding,
) -> Callable[[Any, dict[str, jax.Array], dict[str, jax.Array]], dict[str, jax.Array]]:
    """(params, batch, sums so far) -> sums with this batch's added."""
    replicated = NamedSharding(batch_sharding.mesh, PartitionSpec())

    def step(params, tables, batch, totals):
        return loss.add(totals, sums(params, batch, tables)[1])

    jitted = jax.jit(
        step,
        in_shardings=(params_shardings, replicated, batch_sharding, replicated),
        out_shardings=replicated,
    )
    return lambda params, batch, totals: jitted(params, tables, batch, totals)
