"""How probable a model finds given tokens: log p of each, in nats, summed on the host in float64.

- decoder: sum over t > 0 of log p(token t | those before it);
- encoder: pseudo-log-likelihood (Salazar et al. 2020, equation 1): each token is masked in turn,
  one row of a batch for each, sum of log p(token | all others);
- encoder-decoder: sum over t of log p(target t | source, targets before it).

Examples of any lengths are laid into batches of few shapes (`infer.batches`).

Shape suffixes: B rows, T length, S length of the source, P predicted positions, D hidden_size,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lmjax.batch import Batch
from lmjax.errors import UserError
from lmjax.infer import batches
from lmjax.infer.batches import Lengths, Shapes
from lmjax.nn.heads import predicted
from lmjax.nn.model import Model
from lmjax.parallel import rules


@dataclass(frozen=True)
class Example:
    """What is read and what is scored; int32 arrays.

    Attributes:
      inputs: [T] ids that the model (of an encoder-decoder, its decoder) reads.
      targets: [N] ids to score.
      source: [S] ids that the encoder of an encoder-decoder reads; else None.
      mask_id: None: target t is predicted at position t of one row, N = T. Else each target is in a
        row of its own, predicted at its place in `masked`, where the mask then stands.
      masked: [N] positions in `inputs`.
      counted: [N] bool, the targets whose log p is summed; None: all.
    """

    inputs: np.ndarray
    targets: np.ndarray
    source: np.ndarray | None = None
    mask_id: int | None = None
    masked: np.ndarray | None = None
    counted: np.ndarray | None = None

    @property
    def lengths(self) -> tuple[int, int]:
        """(S or 0, T)."""
        return 0 if self.source is None else len(self.source), len(self.inputs)

    @property
    def num_counted(self) -> int:
        """Of how many targets log p is summed."""
        return len(self.targets) if self.counted is None else int(self.counted.sum())


def left_to_right(ids: np.ndarray) -> Example:
    """Each of `ids` but the first after those before it."""
    return Example(ids[:-1], ids[1:])


def masked_in_turn(ids: np.ndarray, mask_id: int, special_ids: Iterable[int]) -> Example:
    """Each of `ids` that is neither special nor the mask, from all others."""
    (masked,) = np.nonzero(~np.isin(ids, [*special_ids, mask_id]))
    return Example(ids, ids[masked], mask_id=mask_id, masked=masked.astype(np.int32))


def from_source(source: np.ndarray, target: np.ndarray, start_id: int) -> Example:
    """Each of `target` after those before it; the decoder first reads `start_id`."""
    start = np.array([start_id], np.int32)
    return Example(np.concatenate([start, target[:-1]]), target, source)


class Score(NamedTuple):
    """Sum of log p in nats, and of how many tokens."""

    logprob: float
    num_tokens: int


class _Row(NamedTuple):
    """One row of a batch."""

    example: int
    inputs: np.ndarray
    targets: np.ndarray
    source: np.ndarray | None
    predict_at: int | None
    counted: np.ndarray | None


class Scorer:
    """(examples) -> their scores, in the same order; run it in the mesh's context."""

    def __init__(
        self,
        model: Model,
        params: Any,
        batch_sharding: NamedSharding,
        *,
        batch_tokens: int,
    ):
        """Scores with a model.

        Args:
          model: its `dtype` is computed in; logits and their softmax are float32.
          params: its parameters, on the mesh of `batch_sharding`.
          batch_sharding: how rows lie on the mesh.
          batch_tokens: of a batch, padding included; see `batches.Shapes`.

        Raises:
          UserError: the model has a head that predicts no tokens.
        """
        if not model.config.predicts_tokens:
            raise UserError(
                f"this model was fine-tuned: its head, {model.config.head!r}, predicts no tokens; "
                "take the workdir of the run that it started from"
            )
        self._params, self._sharding = params, batch_sharding
        self._shapes = Shapes(model.config, batch_sharding, batch_tokens)
        replicated = NamedSharding(batch_sharding.mesh, PartitionSpec())
        self._logprobs = jax.jit(partial(_logprobs, model), out_shardings=replicated)

    def __call__(
        self,
        examples: Sequence[Example],
        on_batch: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[Score]:
        """Scores examples.

        Args:
          examples: no id outside the vocabulary, none longer than a learned position table.
          on_batch: told (tokens scored, tokens to score).
        """
        sums = np.zeros(len(examples), np.float64)
        lengths = {i: example.lengths for i, example in enumerate(examples) if len(example.targets)}
        done, of = 0, sum(len(example.targets) for example in examples)
        laid = self._shapes.batches(lengths, lambda index: _rows(index, examples[index]))
        for (rows, _), logprobs in batches.read_behind(laid, self._launch):
            done += _add(sums, rows, logprobs)
            on_batch(done, of)
        return [
            Score(float(total), example.num_counted)
            for total, example in zip(sums, examples, strict=True)
        ]

    def _launch(self, laid: tuple[Sequence[_Row], Lengths]) -> jax.Array:
        rows, lengths = laid
        batch = _batch(rows, self._shapes.num_rows(*lengths), *lengths)
        return self._logprobs(self._params, rules.place(batch, self._sharding))


def _rows(index: int, example: Example) -> Iterator[_Row]:
    if example.mask_id is not None:
        for target, place in zip(example.targets, example.masked, strict=True):
            inputs = example.inputs.copy()
            inputs[place] = example.mask_id
            yield _Row(index, inputs, np.array([target]), None, place, None)
    else:
        counted = example.counted
        yield _Row(index, example.inputs, example.targets, example.source, None, counted)


def _batch(rows: Sequence[_Row], num_rows: int, source: int, length: int) -> Batch:
    """A batch of the contract without weights; rows behind the given ones are padding."""
    filled = batches.filled
    batch = batches.sequences([row.inputs for row in rows], num_rows, length)
    if source:
        sources = batches.sequences([row.source for row in rows], num_rows, source)
        batch |= batches.encoder_side(sources)
    if rows[0].predict_at is None:
        return batch | {"targets": filled([row.targets for row in rows], num_rows, length)}
    predict_at = [np.array([row.predict_at]) for row in rows]
    batch |= {"predict_at": filled(predict_at, num_rows, 1)}
    return batch | {"targets": filled([row.targets for row in rows], num_rows, 1)}


def _logprobs(model: Model, params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    """log p of the targets, float32 [B, P]; the logits of one batch are the most that is held."""
    variables = {"params": params}
    hidden_BTD, _ = model.apply(variables, batch, method="trunk")
    logits_BPV = model.apply(variables, predicted(hidden_BTD, batch), method="head")
    target_BP = jnp.take_along_axis(logits_BPV, batch["targets"][..., None], axis=-1)[..., 0]
    return target_BP - jax.nn.logsumexp(logits_BPV, axis=-1)


def _add(sums: np.ndarray, rows: Sequence[_Row], logprobs: jax.Array) -> int:
    """Adds what each row comes to, in float64, to its example's sum; returns how many tokens."""
    logprobs_BP = np.asarray(logprobs, np.float64)
    for row, logprob_P in zip(rows, logprobs_BP, strict=False):
        logprob_N = logprob_P[: len(row.targets)]
        sums[row.example] += (logprob_N if row.counted is None else logprob_N[row.counted]).sum()
    return sum(len(row.targets) for row in rows)
