"""A mixture of objectives: each row is made by one of them, drawn by weight.

All take windows of one length, the most that fits every part; a part that needs fewer places than
another leaves the rest of its row as padding. Where a model is to be told which part a row is from,
a mode token stands in front of what the encoder reads (Tay et al. 2022, UL2, section 3.1.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmjax import fields as fields_lib
from lmjax.batch import Batch, Ids, Objective, Spec, padding_row
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.noise import RowNoise
from lmjax.objectives.description import Description, percent

ARCHITECTURE = None  # that of its parts

_PART = 2**31  # a noise stream that no part has


@dataclass(frozen=True)
class Part:
    """An objective of a mixture.

    Attributes:
      objective: with a mode token, made for rows that are one place shorter.
      weight: what it is drawn in proportion to.
      mode: id in front of the encoder's inputs; None: none.
    """

    objective: Objective
    weight: float = 1.0
    mode: int | None = None


@dataclass(frozen=True)
class Mixture:
    """Rows of several objectives that have the same fields.

    Raises:
      UserError: the parts do not go together.
    """

    seq_len: int
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        first = self.parts[0].objective
        for part in self.parts:
            other = part.objective
            if isinstance(other, Mixture):
                raise UserError(
                    "config.objective.mixture has a mixture among its parts; name the parts of "
                    "that one instead"
                )
            same = other.closes_rows == first.closes_rows and other.spec(1).keys() == (
                first.spec(1).keys()
            )
            if not same or other.window_length - other.window_stride != self._lead:
                raise UserError(
                    f"config.objective.mixture: {type(first).__name__} and {type(other).__name__} "
                    "make rows of other fields and do not mix; mix objectives of one kind"
                )

    @property
    def _lead(self) -> int:
        first = self.parts[0].objective
        return first.window_length - first.window_stride

    @property
    def exact_likelihood(self) -> bool:
        return all(part.objective.exact_likelihood for part in self.parts)

    @property
    def joins_documents(self) -> bool:
        return any(part.objective.joins_documents for part in self.parts)

    @property
    def closes_rows(self) -> bool:
        return self.parts[0].objective.closes_rows

    @property
    def window_length(self) -> int:
        return min(part.objective.window_length for part in self.parts)

    @property
    def window_stride(self) -> int:
        return self.window_length - self._lead

    @cached_property
    def _shares(self) -> np.ndarray:
        weights = np.array([part.weight for part in self.parts], np.float64)
        return np.cumsum(weights / weights.sum())

    def places(self, length_N: np.ndarray) -> dict[str, np.ndarray]:
        most: dict[str, np.ndarray] = {}
        for part in self.parts:
            for name, places_N in part.objective.places(length_N).items():
                places_N = places_N + (part.mode is not None and name == "enc_inputs")
                most[name] = np.maximum(most.get(name, 0), places_N)
        return most

    def spec(self, num_rows: int) -> Spec:
        whole = self._spec | {
            name: ((1, self.seq_len), dtype)
            for name, (_, dtype) in self._spec.items()
            if name.startswith("enc_")
        }
        return {name: ((num_rows, *shape[1:]), dtype) for name, (shape, dtype) in whole.items()}

    @cached_property
    def _spec(self) -> Spec:
        """Shapes of a row that holds any part's."""
        empty_1W = np.zeros((1, self.window_length), np.int32)
        nothing = (empty_1W, empty_1W - np.int64(1), RowNoise(0, np.zeros(1), np.zeros(1)))
        made = [_with_mode(part.objective(*nothing), part.mode) for part in self.parts]
        return {
            name: ((1, max(batch[name].shape[1] for batch in made)), field.dtype)
            for name, field in made[0].items()
        }

    def __call__(self, tokens_BW: np.ndarray, documents_BW: np.ndarray, noise: RowNoise) -> Batch:
        part_B = np.searchsorted(self._shares, noise.uniform(_PART, 1)[:, 0], side="right")
        num_rows, width = tokens_BW.shape
        made = []
        for k, part in enumerate(self.parts):
            row_N = np.flatnonzero(part_B == k)
            rows = tokens_BW[row_N], documents_BW[row_N], noise.rows(row_N)
            made.append((row_N, _with_mode(part.objective(*rows), part.mode)))
        if width == self.window_length:
            lengths = {name: shape[1] for name, (shape, _) in self.spec(1).items()}
        else:
            lengths = {name: max(b[name].shape[1] for _, b in made) for name in made[0][1]}
        batch = {}
        for name, first in made[0][1].items():
            padding = first.dtype.type(self._padding[name])
            batch[name] = np.full((num_rows, lengths[name]), padding)
            for row_N, part_batch in made:
                batch[name][row_N, : part_batch[name].shape[1]] = part_batch[name]
        return batch

    @cached_property
    def _padding(self) -> dict[str, float]:
        """What each field has where there is nothing."""
        row = padding_row(self.parts[0].objective)
        return {name: field[0, 0] for name, field in row.items()}


def _with_mode(batch: Batch, mode: int | None) -> Batch:
    """The batch with a token more in front of the encoder's inputs, where there are any."""
    if mode is None:
        return batch
    real_BS = batch["enc_segment_ids"] > 0
    shifted = dict(batch)
    for name in ("enc_inputs", "enc_segment_ids", "enc_positions"):
        field_BS = batch[name]
        shifted[name] = np.concatenate([field_BS[:, :1], field_BS], axis=1)
    shifted["enc_inputs"][:, 0] = np.where(real_BS[:, 0], mode, batch["enc_inputs"][:, 0])
    shifted["enc_positions"][:, 1:] += real_BS
    return shifted


def parts(config: Config) -> Sequence[tuple[Config, float]]:
    """(config, weight) of each part that `objective.mixture` names.

    Raises:
      UserError: there are none, or one has an unknown field or an impossible weight.
    """
    if not config.objective.mixture:
        raise UserError(
            "config.objective.mixture is empty; give it parts (name, weight, ((field, value), "
            "...)), e.g. (('span_corruption', 1.0, ()), ('prefix_lm', 1.0, ()))"
        )
    found = []
    for name, weight, settings in config.objective.mixture:
        if weight <= 0:
            raise UserError(
                f"config.objective.mixture: {name!r} has weight {weight}; give one above 0"
            )
        changes = {f"objective.{field}": value for field, value in settings}
        changes |= {"objective.name": name, "objective.mixture": ()}
        found.append((fields_lib.replace(config, changes), weight))
    return found


def describe(config: Config) -> Description:
    """What its parts say; where they frame a text differently, it is the heaviest that does."""
    from lmjax import objectives

    weighted = [(objectives.describe(part), weight) for part, weight in parts(config)]
    found, total = [part for part, _ in weighted], sum(weight for _, weight in weighted)
    shares = [f"{percent(weight / total)} by {part.name} ({part.how})" for part, weight in weighted]
    heaviest, _ = max(weighted, key=lambda pair: pair[1])
    framed = f"; a text of its own is framed as by {heaviest.name}"
    several = len({part.frame for part in found}) > 1
    left_out = dict.fromkeys(f"in {part.name} {part.left_out}" for part in found if part.left_out)
    return Description(
        name=f"a mixture of {' and '.join(dict.fromkeys(part.name for part in found))}",
        how=f"of the rows {', '.join(shares)}{framed * several}",
        does=" and ".join(dict.fromkeys(part.does for part in found)),
        frame=heaviest.frame,
        special=tuple(dict.fromkeys(name for part in found for name in part.special)),
        left_out=", ".join(left_out),
        prompts=tuple(dict.fromkeys(prompt for part in found for prompt in part.prompts)),
        gap=heaviest.gap,
        continuation=heaviest.continuation,
    )


def make(config: Config, ids: Ids) -> Mixture:
    """The objective that `config` describes."""
    from lmjax import objectives

    made = [Part(objectives.make(part, ids), weight) for part, weight in parts(config)]
    return Mixture(config.data.seq_len, tuple(made))
