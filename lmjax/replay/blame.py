"""Whose tokens a step paid for: documents of a batch with what they cost.

In planned rows every document is a segment. A row that is cut from the stream is laid beside the
window it was made of: what the model read and was to write, put together again, has to be a stretch
of that window to the token. Where it is not (some mixtures of objectives move text about), the
documents of a row are blamed together.

Dimension key: B rows of a batch, P predictions of a row, W tokens of a window.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmjax.batch import INFO_PREFIX, SOURCE, Batch, Ids
from lmjax.data.labelled import ExampleRows
from lmjax.data.pipeline import TrainBatches
from lmjax.data.rows import Rows, StreamRows
from lmjax.train.shown import Shown, sequences

_EXCERPT = 96  # tokens


@dataclass
class Blamed:
    """A document, or several of one row that cannot be told apart.

    Attributes:
      source: which of the run's.
      documents: their indices in its store.
      nats, weight: sums over its predictions.
      tokens: how many these are.
      rows: of the batch that have some of it.
      excerpt: the first ids of it that a row of the batch has.
      lift: nats by which it lifts the loss of the step; infinite where its own is not finite.
    """

    source: int
    documents: tuple[int, ...]
    nats: float = 0.0
    weight: float = 0.0
    tokens: int = 0
    rows: list[int] = field(default_factory=list)
    excerpt: list[int] = field(default_factory=list)
    lift: float = math.inf

    @property
    def loss(self) -> float:
        """Nats per prediction."""
        return self.nats / max(self.weight, 1e-9)


def documents(batches: TrainBatches, batch: Batch, nats_BP: np.ndarray, ids: Ids) -> list[Blamed]:
    """The documents of a batch, those first that lift its loss most.

    Args:
      batches, batch: of the run and of the step.
      nats_BP: of the step.
      ids: of the run.
    """
    found: dict[tuple[int, tuple[int, ...]], Blamed] = {}
    for number, nats_P in enumerate(nats_BP):
        row = {name: values[number] for name, values in batch.items()}
        source = int(row.get(SOURCE, 0))
        weights_P = row["weights"]
        for owners, slots, excerpt in _parts(batches.sources[source], row, ids):
            blamed = found.setdefault((source, owners), Blamed(source, owners))
            blamed.nats += float(np.float64(weights_P[slots]) @ np.float64(nats_P[slots]))
            blamed.weight += float(weights_P[slots].sum(dtype=np.float64))
            blamed.tokens += len(slots)
            blamed.rows.append(number)
            blamed.excerpt = blamed.excerpt or excerpt[:_EXCERPT]
    finite = [blamed for blamed in found.values() if math.isfinite(blamed.nats)]
    nats, weight = sum(blamed.nats for blamed in finite), sum(blamed.weight for blamed in finite)
    for blamed in finite:
        others = weight - blamed.weight
        rest = (nats - blamed.nats) / others if others > 0 else 0.0
        blamed.lift = nats / max(weight, 1e-9) - rest
    return sorted(found.values(), key=lambda blamed: blamed.lift, reverse=True)


Part = tuple[tuple[int, ...], list[int], list[int]]


def _parts(rows: Rows, row: Batch, ids: Ids) -> Iterator[Part]:
    """(documents, predictions that are theirs, ids that show them) of a row."""
    window = int(row[INFO_PREFIX + "window"])
    used = np.flatnonzero(row["weights"] > 0).tolist()
    owners = tuple(dict.fromkeys(rows.documents(window)))
    if not used:
        return
    if isinstance(rows, ExampleRows):
        yield owners, used, _read(row)
        return
    text = _text(row, ids, used)
    if isinstance(rows, StreamRows):
        owner_of = _beside(rows, window, text, ids)
    else:
        parts = rows.documents(window)  # one for each segment
        owner_of = [parts[shown.segment - 1] for shown in text]
    if owner_of is None or all(shown.prediction is None for shown in text):
        yield owners, used, [_id(shown) for shown in text]
        return
    slots, excerpts = defaultdict(list), defaultdict(list)
    for shown, owner in zip(text, owner_of, strict=True):
        excerpts[owner].append(_id(shown))
        if shown.prediction is not None:
            slots[owner].append(shown.prediction)
    for owner, left in _unnamed(slots, used):
        slots[owner].append(left)
    for owner, its in slots.items():
        yield (owner,), sorted(its), excerpts[owner]


def _unnamed(slots: dict[int, list[int]], used: Sequence[int]) -> list[tuple[int, int]]:
    """(document, prediction) of end tokens and sentinels: they go with the text before them."""
    owner_of = {slot: owner for owner, its in slots.items() for slot in its}
    owner = owner_of[min(owner_of)]
    found = []
    for slot in used:
        if slot in owner_of:
            owner = owner_of[slot]
        else:
            found.append((owner, slot))
    return found


def _read(row: Batch) -> list[int]:
    """What a labelled example's model reads."""
    prefix = "enc_" if "enc_inputs" in row else ""
    return row[f"{prefix}inputs"][row[f"{prefix}segment_ids"] > 0].tolist()


def _id(shown: Shown) -> int:
    return shown.token if shown.hides is None else shown.hides


def _text(row: Batch, ids: Ids, used: Sequence[int]) -> list[Shown]:
    """The text of a row in its order, without special tokens, with all of it that is predicted."""
    sides = dict(sequences(row, ids))
    is_text = lambda shown: _id(shown) < ids.num_ids and _id(shown) not in ids.special
    targets = sides.get("targets")
    if targets is None:
        return list(filter(is_text, sides["inputs"]))
    plain = list(filter(is_text, targets))
    if "encoder" not in sides:
        return plain
    filled = list(_filled(sides["encoder"], targets, is_text))
    predicted = {shown.prediction for shown in plain}
    covers = predicted <= {shown.prediction for shown in filled}
    return filled if covers else plain


def _filled(encoder: Sequence[Shown], targets: Sequence[Shown], is_text) -> Iterator[Shown]:
    """What an encoder reads, with the spans of the targets behind their sentinels."""
    spans: dict[tuple[int, int | None], list[Shown]] = defaultdict(list)
    sentinel = None
    for shown in targets:
        if is_text(shown):
            spans[shown.segment, sentinel].append(shown)
        else:
            sentinel = shown.token
    for shown in encoder:
        if is_text(shown):
            yield shown
        else:
            yield from spans.pop((shown.segment, shown.token), ())


def _beside(rows: StreamRows, window: int, text: Sequence[Shown], ids: Ids) -> list[int] | None:
    """The document of each token, where the text is a stretch of the row's window; else None."""
    tokens_W, documents_W = (values[0] for values in rows.windows.read(np.array([window])))
    plain_W = (documents_W >= 0) & ~np.isin(tokens_W, ids.special)
    tokens_W, documents_W = tokens_W[plain_W], documents_W[plain_W]
    wanted = np.array([_id(shown) for shown in text])
    for start in range(len(tokens_W) - len(wanted) + 1):
        if np.array_equal(tokens_W[start : start + len(wanted)], wanted):
            return documents_W[start : start + len(wanted)].tolist()
    return None
