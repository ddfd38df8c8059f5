"""What there is to see in a row of a batch: its sequences, token by token, and where it is from.

The console (`inspect`) and the page of a replayed step show the same. Which sequences there are is
told by the fields of the batch alone: where only some positions predict (masked LM), predictions
stand in what is read, else in a sequence of their own, the targets.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lmjax.batch import INFO_PREFIX, SOURCE, Batch, Ids
from lmjax.data.labelled import ExampleRows
from lmjax.data.pipeline import TrainBatches
from lmjax.data.tokenizer import AnyTokenizer, IdsTokenizer

ROW_FIELDS = (("encoder", "enc_"), ("inputs", ""))  # what is read, in order

# What is read; a target, or one that is given away or weighs nothing; and what stands where a token
# was hidden: the mask, a random token or the token itself.
Kind = Literal["read", "target", "given", "mask", "random", "kept"]


@dataclass(frozen=True)
class Shown:
    """A token of a sequence.

    Attributes:
      token: its id.
      kind: see `Kind`.
      segment: of the row, from 1.
      hides: the id that stood there, if another or the same is hidden.
      prediction: which of the row's predictions it is, if any.
    """

    token: int
    kind: Kind
    segment: int
    hides: int | None = None
    prediction: int | None = None


def sequences(row: Batch, ids: Ids, *, answered: bool = False) -> Iterator[tuple[str, list[Shown]]]:
    """(name, tokens) of what the row's model reads and, unless shown there or else, predicts.

    Args:
      row: fields of a batch without their first dim.
      ids: of the run.
      answered: what is predicted is no token.
    """
    hidden = {} if answered else hidden_of(row)
    slots = {} if answered else _slots(row)
    for name, prefix in ROW_FIELDS:
        if f"{prefix}inputs" not in row:
            continue
        tokens, segment_ids = row[f"{prefix}inputs"].tolist(), row[f"{prefix}segment_ids"].tolist()
        here = {} if prefix else hidden
        yield (
            name,
            [
                _replaced(token, segment, here[t], slots[t], ids)
                if t in here
                else Shown(token, "read", segment)
                for t, (token, segment) in enumerate(zip(tokens, segment_ids, strict=True))
                if segment
            ],
        )
    if not hidden and not answered:
        fields = ("targets", "content_weights", "segment_ids", "weights")
        yield (
            "targets",
            [
                Shown(
                    token,
                    "target" if content else "given",
                    segment,
                    prediction=t if weight > 0 else None,
                )
                for t, (token, content, segment, weight) in enumerate(
                    zip(*(row[name].tolist() for name in fields), strict=True)
                )
                if segment
            ],
        )


def hidden_of(row: Batch) -> dict[int, int]:
    """{position: id that stood there} where only some positions predict."""
    return {at: int(row["targets"][slot]) for at, slot in _slots(row).items()}


def _slots(row: Batch) -> dict[int, int]:
    """{position: which of the predictions it is} where only some positions predict."""
    if "predict_at" not in row:
        return {}
    used = (row["weights"] > 0).nonzero()[0].tolist()
    return {int(row["predict_at"][slot]): slot for slot in used}


def _replaced(token: int, segment: int, target: int, slot: int, ids: Ids) -> Shown:
    kind: Kind = "mask" if token == ids.mask else "kept" if token == target else "random"
    return Shown(token, kind, segment, hides=target, prediction=slot)


def name_of(token: int, tokenizer: AnyTokenizer, ids: Ids) -> str | None:
    """How an id that is no text is called; None for text."""
    if token >= ids.num_ids:
        return f"<extra_id_{ids.sentinel(token)}>"  # as T5 calls them
    return tokenizer.piece(token) if token in ids.special else None


class Spelling:
    """Ids -> the text that each of them adds to those before it."""

    def __init__(self, tokenizer: AnyTokenizer, ids: Ids):
        self._tokenizer, self._ids = tokenizer, ids
        self._surfaces = None if isinstance(tokenizer, IdsTokenizer) else tokenizer.surfaces

    def __call__(self, tokens: Iterable[int]) -> list[str]:
        """The text of each id; of a byte that only begins a character, and of what is no text, the
        name of the id."""
        if self._surfaces is None:
            return [f"{token} " for token in tokens]
        texts, decoder = [], codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            if (name := name_of(token, self._tokenizer, self._ids)) is not None:
                decoder.reset()
                texts.append(name)
            else:
                text = decoder.decode(self._surfaces[token])
                texts.append(text or self._tokenizer.piece(token))
        return texts


def header(row: Batch, batches: TrainBatches, names: Sequence[str]) -> str:
    """Which row it is, and from where; `names` are those of the sources of a mixture."""
    window, source = int(row[INFO_PREFIX + "window"]), int(row.get(SOURCE, 0))
    rows = batches.sources[source]
    shown = [f"{name}:{record}" for name, record in map(rows.store.origin, rows.documents(window))]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    of = f"  of {names[source]}" if names else ""
    where = f"{of}  window {window}  from {', '.join(shown[:3])}{more}"
    return f"row {row[INFO_PREFIX + 'row']}{where}"


def answer_of(row: Batch, batches: TrainBatches) -> str | None:
    """What is right, of a labelled example whose targets are no tokens; else None."""
    rows = batches.sources[int(row.get(SOURCE, 0))]
    if not isinstance(rows, ExampleRows) or rows.objective.writes is not None:
        return None
    reference = rows.examples[int(row[INFO_PREFIX + "window"])].reference
    return " ".join(reference) if isinstance(reference, list) else str(reference)
