"""The rows of a split, seen through an objective: cut from its stream, or planned by document.

Both are random access and pure: the batch of some rows is a function of (seed, epoch, row) and of
nothing else. In a planned row every document, or part of one that is too long, is corrupted as if
it were alone, by noise that hangs on where it starts in the stream, so that it is the same whatever
shares its row; then the documents of a row are laid one behind another, on each side of it, as
segments of their own.

Dimension key: R rows, D parts of documents in them, W raw tokens of a window, L places of a side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lmjax.batch import Batch, Objective, padding_row
from lmjax.data.plan import Plan
from lmjax.data.store import Store
from lmjax.data.windows import Windows
from lmjax.errors import UserError
from lmjax.noise import RowNoise

_FEW = 1 << 14  # so few places cost less in one go than sorted by width
_NARROWEST = 32  # texts shorter than this are corrupted in windows of this width


class Rows(Protocol):
    """Random access to the rows of a split."""

    store: Store
    objective: Objective

    def __len__(self) -> int: ...

    def make(self, seed: int, epoch_R: np.ndarray, row_R: np.ndarray) -> Batch:
        """The device fields of some rows; one behind the last is padding."""
        ...

    def documents(self, row: int) -> list[int]:
        """Indices of the documents that a row shows."""
        ...


@dataclass(frozen=True)
class StreamRows:
    """Rows cut from the stream of all documents at every `window_stride` tokens.

    Attributes:
      store, objective: whose rows these are.
      cross: a row counts as one document, so that attention sees all of it.
    """

    store: Store
    objective: Objective
    cross: bool = False

    @property
    def windows(self) -> Windows:
        return Windows(self.store, self.objective.window_length, self.objective.window_stride)

    def __len__(self) -> int:
        return len(self.windows)

    def make(self, seed: int, epoch_R: np.ndarray, row_R: np.ndarray) -> Batch:
        tokens_RW, documents_RW = self.windows.read(row_R)
        if self.cross:
            documents_RW = np.minimum(documents_RW, 0)
        return self.objective(tokens_RW, documents_RW, RowNoise(seed, epoch_R, row_R))

    def documents(self, row: int) -> list[int]:
        _, documents_1W = self.windows.read(np.array([row]))
        return [int(d) for d in np.unique(documents_1W) if d >= 0]


@dataclass(frozen=True)
class PlannedRows:
    """Rows of whole documents, as `plan` has them."""

    store: Store
    objective: Objective
    plan: Plan

    def __len__(self) -> int:
        return self.plan.num_rows

    def make(self, seed: int, epoch_R: np.ndarray, row_R: np.ndarray) -> Batch:
        slot_D, start_D, length_D = self._parts(row_R)
        padding = padding_row(self.objective)
        batch = {name: np.repeat(field, len(row_R), axis=0) for name, field in padding.items()}
        batches = []
        for width, part_N in self._by_width(length_D):
            tokens_NW, documents_NW = self._read(start_D[part_N], length_D[part_N], width)
            noise = RowNoise(seed, np.asarray(epoch_R)[slot_D[part_N]], start_D[part_N])
            batches.append((part_N, self.objective(tokens_NW, documents_NW, noise)))
        _lay(batches, slot_D, batch)
        return batch

    def documents(self, row: int) -> list[int]:
        _, start_D, _ = self._parts(np.array([row]))
        return self.store.documents_of(start_D).tolist()

    def _parts(self, row_R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Those of the plan, which lies on a disk, if they are parts of this store's rows."""
        slot_D, start_D, length_D = self.plan.parts(row_R)
        fits_D = (length_D > 0) & (length_D <= self.objective.window_stride)
        fits_D &= (start_D >= 0) & (start_D <= self.store.num_tokens - length_D)
        if not fits_D.all():
            raise UserError(
                f"{self.plan.path}: its rows are not those of this store; delete it to plan anew"
            )
        return slot_D, start_D, length_D

    def _by_width(self, length_D: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (width of window, the parts that it suits): few widths, little padding."""
        longest, shortest = self.objective.window_stride, 0
        if 0 < len(length_D) * longest <= _FEW:
            yield longest, np.arange(len(length_D))
            return
        width = min(_NARROWEST, longest)
        while shortest < longest:
            part_N = np.flatnonzero((shortest < length_D) & (length_D <= width))
            if len(part_N):
                yield width, part_N
            shortest, width = width, min(2 * width, longest)

    def _read(
        self, start_N: np.ndarray, length_N: np.ndarray, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (int32) and documents (0; -1: padding) of windows of one document each."""
        lead = self.objective.window_length - self.objective.window_stride
        tokens_NW = self.store.read(np.maximum(start_N - lead, 0), width + lead)
        if lead and (first_N := start_N < lead).any():  # nothing stands before the stream
            tokens_NW[first_N, lead:] = tokens_NW[first_N, :-lead].copy()
            tokens_NW[first_N, :lead] = self.store.read(np.array([self.store.num_tokens - 1]), 1)
        real_NW = np.arange(width + lead) < lead + length_N[:, None]
        return tokens_NW * real_NW, real_NW.astype(np.int64) - 1


def _lay(
    batches: list[tuple[np.ndarray, Batch]], slot_D: np.ndarray, batch: Mapping[str, np.ndarray]
) -> None:
    """Lays texts side by side into the rows of `batch`, zeros until then.

    Args:
      batches: (which of the D parts, their batch, a row each).
      slot_D: the row each part goes to, ascending.
      batch: filled.
    """
    first_R = np.searchsorted(slot_D, np.arange(len(batch["inputs"])))
    number_D = np.arange(len(slot_D)) - first_R[slot_D] + 1
    sides = {_side(name, batch): None for name in batch}
    offsets = {}
    for side in sides:
        used_D = np.zeros(len(slot_D), np.int64)
        for part_N, made in batches:
            used_D[part_N] = np.count_nonzero(made[side] > 0, axis=1)
        before_D = np.cumsum(used_D) - used_D
        offsets[side] = before_D - before_D[first_R[slot_D]]
        if (offsets[side] + used_D > batch[side].shape[1]).any():
            raise ValueError(f"{side}: the texts of a row take more places than it has")
    for part_N, made in batches:
        for side in sides:
            real_NL = made[side] > 0
            used_N = real_NL.sum(axis=1)
            start_N = slot_D[part_N] * batch[side].shape[1] + offsets[side][part_N]
            place_M = np.arange(used_N.sum())
            place_M += np.repeat(start_N - np.cumsum(used_N) + used_N, used_N)
            for name in batch:
                if _side(name, batch) != side:
                    continue
                value_M = made[name][real_NL]
                if name.endswith("segment_ids"):
                    value_M = np.repeat(number_D[part_N], used_N)
                elif name == "predict_at":
                    value_M = value_M + np.repeat(offsets["segment_ids"][part_N], used_N)
                batch[name].reshape(-1)[place_M] = value_M


def _side(name: str, batch: Mapping[str, np.ndarray]) -> str:
    """The field that is positive just where a field of the same side holds something."""
    if name.startswith("enc_"):
        return "enc_segment_ids"
    if "predict_at" in batch and name in ("predict_at", "targets", "weights", "content_weights"):
        return "weights"
    return "segment_ids"
