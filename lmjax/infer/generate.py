"""Continues prompts: a decoder its text, the decoder of an encoder-decoder after a source.

Prompts of any lengths are sorted by length and laid into batches, longest first. A prompt is read
at once and fills the cache; then one token after another is chosen (`infer.sampling`) and read, in
a loop on the device, until all rows of the batch have ended. A decoder's prompts are padded in
front, so that all rows write to the same slot of the cache; padding is segment 0, which nobody
sees, and positions count from the first real token. An encoder's are padded behind, and what
cross-attention makes of its result is kept in the cache, too.

Lengths are padded to powers of two, and only a call with few prompts has fewer rows than fit, so
that few shapes are compiled.

Shape suffixes: B rows, P padded length of prompts, N `max_new_tokens`, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import NamedSharding

from lmjax.batch import Batch
from lmjax.errors import UserError
from lmjax.infer import sampling as sampling_lib
from lmjax.infer.sampling import Sampling
from lmjax.nn.attention import Memory, Tokens
from lmjax.nn.model import Cache, Model
from lmjax.parallel import rules

_SHORTEST = 16  # prompts that are shorter are padded to this
_BETWEEN_LOOKS = 16  # tokens of a row from one look for a stop to the next

_GREEDY = Sampling()

Stop = Callable[[list[int]], bool]


@dataclass(frozen=True)
class Generated:
    """What follows on a prompt.

    Attributes:
      ids: int32, without the end token.
      finish_reason: "eos": the model ended it; "stop": `stop` did, with the last of `ids`;
        "length": there are `max_new_tokens`.
    """

    ids: np.ndarray
    finish_reason: Literal["eos", "stop", "length"]


class _State(NamedTuple):
    """A batch on the device, from one token to the next.

    Attributes:
      cache: of all tokens but the last.
      source: of an encoder-decoder, whose keys and values are in the cache.
      ids_BN: the tokens so far; 0 behind them.
      step: how many are chosen.
      count_B: how many of them a row has, eos not among them.
      ended_B: whether a row has its eos.
      finite_B: whether all logits of a row were finite.
      position_B: of the last token.
      number_B2: what a row's noise is made of.
    """

    cache: Cache
    source: Tokens | None
    ids_BN: jax.Array
    step: jax.Array
    count_B: jax.Array
    ended_B: jax.Array
    finite_B: jax.Array
    position_B: jax.Array
    number_B2: jax.Array


class Generator:
    """(parameters, prompts) -> what follows on them; run it in the mesh's context."""

    def __init__(
        self,
        model: Model,
        batch_sharding: NamedSharding,
        *,
        eos_id: int | None,
        max_new_tokens: int,
        decoder_start_id: int | None = None,
        forced_first_id: int | None = None,
        sampling: Sampling = _GREEDY,
        allowed: np.ndarray | None = None,
        batch_tokens: int = 4096,
        batch_size: int | None = None,
    ):
        """Generates with a model.

        Args:
          model: a decoder or an encoder-decoder; its `dtype` is computed in.
          batch_sharding: how rows lie on the mesh.
          eos_id: the token that ends a text; None: nothing does.
          max_new_tokens: most tokens that follow on a prompt.
          decoder_start_id: what the decoder of an encoder-decoder reads first.
          forced_first_id: what it reads next, where all targets of training began with it; None:
            there is no such token. It is not among what is generated.
          sampling: how tokens are chosen.
          allowed: bool [V], which may be; None: all.
          batch_tokens: rows x (padded prompt and new tokens) of a batch is at most this, if not one
            row per part of the mesh is more already.
          batch_size: most rows of a batch; None: as many as `batch_tokens` says.

        Raises:
          UserError: the model is an encoder or predicts no tokens, or a number is out of its range.
        """
        if model.config.architecture == "encoder":
            raise UserError(
                "this model is an encoder, which writes no text; fill masks with "
                "tools/fill_mask.py, or train a decoder or an encoder-decoder"
            )
        if not model.config.predicts_tokens:
            raise UserError(
                "this model was fine-tuned to predict classes and has no head for tokens; take one "
                "that was trained on text"
            )
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens={max_new_tokens} asks for nothing; give 1 or more")
        self._two = model.config.architecture == "encoder_decoder"
        first = (decoder_start_id, forced_first_id) if self._two else ()
        self._first = np.array([token for token in first if token is not None], np.int32)
        self._new, self._sharding = max_new_tokens, batch_sharding
        self._batch_tokens, self._batch_size = batch_tokens, batch_size
        config = model.config
        self._longest = config.max_positions if config.position == "learned" else None
        choose = partial(_chosen, sampling, allowed, -1 if eos_id is None else eos_id)
        self._begin = jax.jit(partial(_begin, model, max_new_tokens, choose))
        self._go_on = jax.jit(partial(_go_on, model, choose), donate_argnums=1)

    def check(self, prompt: np.ndarray) -> None:
        """Raises UserError unless it is a prompt and there is room for what follows on it."""
        if not len(prompt):
            raise UserError("the prompt is empty; give it one id at least")
        if self._longest is None:
            return
        needed = len(self._first) if self._two else len(prompt)
        room = self._longest - needed + 1  # the last token is not read
        if self._two and len(prompt) > self._longest:
            raise UserError(
                f"the prompt takes {len(prompt)} positions, the model has {self._longest} "
                "(config.model.max_positions); shorten it"
            )
        if room < self._new:
            fix = f"lower max_new_tokens to {room}" if room > 0 else "shorten the prompt"
            more = ", or shorten the prompt" * (room > 0 and not self._two)
            raise UserError(
                f"the prompt and {self._new} new tokens take {needed + self._new - 1} positions, "
                f"the model has {self._longest} (config.model.max_positions); {fix}{more}"
            )

    def __call__(
        self,
        params: Any,
        prompts: Sequence[np.ndarray],
        *,
        seed: int = 0,
        stop: Stop | None = None,
        progress: Callable[[int, int], None] = lambda done, of: None,
        numbers: Sequence[int] | None = None,
    ) -> list[Generated]:
        """Generates.

        Args:
          params: of the model, on the mesh of the sharding; others of the same shapes compile
            nothing anew.
          prompts: int32 [length] each, one id at least, none outside the vocabulary: what the
            decoder reads, or the encoder where there is one.
          seed: of the noise, 32 bits.
          stop: told the ids of a row so far, after each of them; whether that is the end.
          progress: told (prompts done, prompts).
          numbers: what the noise of a prompt is made of beside the seed, 64 bits; None: its place
            among the prompts.

        Returns:
          In the order of the prompts.

        Raises:
          UserError: as `check`; or the model's logits are not finite.
        """
        for prompt in prompts:
            self.check(prompt)
        numbers = range(len(prompts)) if numbers is None else numbers
        results: list[Generated | None] = [None] * len(prompts)
        done = 0
        for chosen, num_rows, length in self._batches([len(prompt) for prompt in prompts]):
            rows = [prompts[index] for index in chosen]
            number_B2 = np.zeros((num_rows, 2), np.uint32)
            for row, index in enumerate(chosen):
                number_B2[row] = numbers[index] & 0xFFFFFFFF, numbers[index] >> 32
            fields = self._fields(rows, num_rows, length) | {"number": number_B2}
            batch = rules.place(fields, self._sharding)
            for index, found in zip(
                chosen, self._run(params, batch, seed, stop, len(rows)), strict=True
            ):
                results[index] = found
            done += len(rows)
            progress(done, len(prompts))
        return results

    def _batches(self, lengths: Sequence[int]) -> Iterator[tuple[list[int], int, int]]:
        """(which prompts, rows, padded length) of each batch; longest first."""
        order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
        parts = rules.split(self._sharding.mesh).rows
        few = -(-len(order) // parts)  # rows per part that are enough for all prompts
        while order:
            length = max(_SHORTEST, _power(lengths[order[0]]))
            per_part = self._batch_tokens // (length + self._new) // parts
            if self._batch_size is not None:
                per_part = min(per_part, self._batch_size // parts)
            num_rows = max(1, min(per_part, _power(few))) * parts
            yield order[:num_rows], num_rows, length
            order = order[num_rows:]

    def _fields(self, rows: Sequence[np.ndarray], num_rows: int, length: int) -> Batch:
        if not self._two:
            return _sequences(rows, num_rows, length, in_front=True)
        encoder = _sequences(rows, num_rows, length, in_front=False)
        fields = {f"enc_{name}": field for name, field in encoder.items()}
        first = [self._first] * len(rows)
        return fields | _sequences(first, num_rows, len(self._first), in_front=True)

    def _run(
        self, params: Any, batch: dict[str, jax.Array], seed: int, stop: Stop | None, count: int
    ) -> list[Generated]:
        """The first `count` rows of a batch; the others are padding."""
        stopped_B = np.arange(len(batch["inputs"])) >= count
        stops: dict[int, int] = {}  # row -> how many ids it has
        seed = np.uint32(seed)
        state = self._begin(params, batch, seed, stopped_B)
        seen = 0
        while True:
            if stop is not None:
                ids_BN, count_B = np.asarray(state.ids_BN), np.asarray(state.count_B)
                for row in np.flatnonzero(~stopped_B):
                    written = ids_BN[row, : count_B[row]].tolist()
                    lengths = range(seen + 1, len(written) + 1)
                    at = next((n for n in lengths if stop(written[:n])), None)
                    if at is not None:
                        stops[int(row)], stopped_B[row] = at, True
            seen = int(state.step)
            if seen == self._new or bool((np.asarray(state.ended_B) | stopped_B).all()):
                break
            until = self._new if stop is None else min(self._new, seen + _BETWEEN_LOOKS)
            state = self._go_on(params, state, seed, stopped_B, np.int32(until))
        ids_BN, count_B, ended_B = map(np.asarray, (state.ids_BN, state.count_B, state.ended_B))
        if not np.asarray(state.finite_B)[:count].all():
            raise UserError(
                "the model's logits are not finite: its training has diverged; take an earlier step"
            )
        found = []
        for row in range(count):
            reason = "stop" if row in stops else "eos" if ended_B[row] else "length"
            found.append(Generated(ids_BN[row, : stops.get(row, count_B[row])].copy(), reason))
        return found


def _power(number: int) -> int:
    """The smallest power of two that is no smaller."""
    return 1 << (number - 1).bit_length()


def _sequences(ids: Sequence[np.ndarray], num_rows: int, length: int, *, in_front: bool) -> Batch:
    """Fields of a batch, padded in front or behind; rows beyond the given ones are padding."""
    names = ("inputs", "segment_ids", "positions")
    batch = {name: np.zeros((num_rows, length), np.int32) for name in names}
    for row, given in enumerate(ids):
        real = slice(length - len(given), length) if in_front else slice(len(given))
        batch["inputs"][row, real] = given
        batch["segment_ids"][row, real] = 1
        batch["positions"][row, real] = np.arange(len(given))
    return batch


def _chosen(
    sampling: Sampling,
    allowed_V: np.ndarray | None,
    eos_id: int,
    logits_BV: jax.Array,
    state: _State,
    seed: jax.Array,
    stopped_B: jax.Array,
) -> _State:
    """The state with one more token of each row that has not ended."""
    if allowed_V is not None:
        logits_BV = jnp.where(allowed_V, logits_BV, -jnp.inf)
    key_B = sampling_lib.row_keys(seed, state.number_B2)
    token_B = sampling_lib.choose(sampling, logits_BV, key_B, state.step)
    active_B = ~(state.ended_B | stopped_B)
    ends_B = token_B == eos_id
    written_B = jnp.where(active_B & ~ends_B, token_B, 0)
    return state._replace(
        ids_BN=jax.lax.dynamic_update_slice_in_dim(
            state.ids_BN, written_B[:, None], state.step, axis=1
        ),
        step=state.step + 1,
        count_B=state.count_B + (active_B & ~ends_B),
        ended_B=state.ended_B | (active_B & ends_B),
        finite_B=state.finite_B & (jnp.isfinite(jnp.max(logits_BV, axis=-1)) | ~active_B),
        position_B=state.position_B + 1,
    )


def _begin(
    model: Model,
    max_new_tokens: int,
    choose: Callable[..., _State],
    params: Any,
    batch: dict[str, jax.Array],
    seed: jax.Array,
    stopped_B: jax.Array,
) -> _State:
    """Reads the prompts and chooses the first tokens."""
    variables = {"params": params}
    num_rows, length = batch["inputs"].shape
    memory = source = None
    if "enc_inputs" in batch:
        memory = model.apply(variables, batch, method="encode")
        source = memory.tokens
    source_length = None if source is None else source.positions.shape[1]
    cache = model.init_cache(num_rows, length + max_new_tokens - 1, source_length)
    hidden_BPD, cache = model.apply(variables, batch, cache=cache, memory=memory, method="trunk")
    logits_B1V = model.apply(variables, hidden_BPD[:, -1:], method="head")
    state = _State(
        cache,
        source,
        ids_BN=jnp.zeros((num_rows, max_new_tokens), jnp.int32),
        step=jnp.int32(0),
        count_B=jnp.zeros(num_rows, jnp.int32),
        ended_B=jnp.zeros(num_rows, bool),
        finite_B=jnp.ones(num_rows, bool),
        position_B=batch["positions"][:, -1],
        number_B2=batch["number"],
    )
    return _laid(choose(logits_B1V[:, 0], state, seed, stopped_B))


def _go_on(
    model: Model,
    choose: Callable[..., _State],
    params: Any,
    state: _State,
    seed: jax.Array,
    stopped_B: jax.Array,
    until: jax.Array,
) -> _State:
    """Chooses more tokens, until there are so many or all rows have ended."""
    variables = {"params": params}

    def goes_on(state: _State) -> jax.Array:
        return (state.step < until) & ~jnp.all(state.ended_B | stopped_B)

    def step(state: _State) -> _State:
        token_B1 = jax.lax.dynamic_slice_in_dim(state.ids_BN, state.step - 1, 1, axis=1)
        one_B1 = jnp.ones_like(token_B1)
        batch = {"inputs": token_B1, "segment_ids": one_B1, "positions": state.position_B[:, None]}
        memory = None if state.source is None else Memory(None, state.source)
        hidden_B1D, cache = model.apply(
            variables, batch, cache=state.cache, memory=memory, method="trunk"
        )
        logits_B1V = model.apply(variables, hidden_B1D, method="head")
        return choose(logits_B1V[:, 0], state._replace(cache=cache), seed, stopped_B)

    return _laid(jax.lax.while_loop(goes_on, step, state))


def _laid(state: _State) -> _State:
    """The state with its rows split like those of a batch, so that a next call finds them so."""

    def laid(leaf: jax.Array) -> jax.Array:
        names = ("act_batch", *(None for _ in leaf.shape[1:]))
        if leaf.ndim >= 4:  # keys or values, perhaps of stacked layers
            names = (*(None for _ in leaf.shape[4:]), "act_batch", "kv_heads", None, None)
        return nn.with_logical_constraint(leaf, names) if leaf.ndim else leaf

    return jax.tree.map(laid, state)
