"""Shows what the model is fed: any step's batch as text, or as arrays.

Every sequence of the batch is decoded in the runs in which the model sees it: neighbouring segments
differ in colour, special tokens, sentinels and mode tokens stand out by name (that of an export:
UL2's R, S, X are <extra_id_128> and the two behind it), padding is counted. Where only some
positions predict, what stands there (the mask, a random token in red, or the token itself,
underlined) is followed by the hidden piece in braces, or by {=}. Else the targets follow; dim are
those that are given away or weigh nothing. Which of these there are is told by the fields of the
batch alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from lmjax.batch import INFO_PREFIX, SOURCE, Batch, Ids
from lmjax.data.labelled import ExampleRows
from lmjax.data.pipeline import TrainBatches
from lmjax.data.tokenizer import AnyTokenizer

_SEGMENT_STYLES = ("cyan", "yellow", "green", "magenta")
_SPECIAL_STYLE = "bold reverse"
_HIDDEN_STYLE, _RANDOM_STYLE, _KEPT_STYLE = "dim strike", "bold red", "bold underline"
_ROW_FIELDS = (("encoder  ", "enc_"), ("inputs   ", ""))  # what is read, in order


@dataclass(frozen=True)
class Shown:
    """A token of a sequence: its id, its style, and the id it hides, if any."""

    token: int
    style: str
    hides: int | None = None


@dataclass(frozen=True)
class Inspector:
    """Prints batches of `batches`; `names` are those of the sources of a mixture."""

    batches: TrainBatches
    tokenizer: AnyTokenizer
    ids: Ids
    names: Sequence[str] = ()

    def show(self, console: Console, steps: range, max_rows: int) -> None:
        """Prints the first `max_rows` rows of each step's batch."""
        for step in steps:
            batch = self.batches(step)
            num_rows = len(batch["inputs"])
            title = f"step {step}: {num_rows} rows, showing {min(max_rows, num_rows)}"
            console.print(Rule(title), width=min(80, console.width))  # a notebook's page is narrow
            for index in range(min(max_rows, num_rows)):
                row = {name: field[index] for name, field in batch.items()}
                console.print(self._header(row), style="bold", highlight=False)
                answer = self._answer(row)
                for name, tokens in _sequences(row, self.ids, answered=answer is not None):
                    line = Text.assemble((name, "dim"), self._text(tokens))
                    console.print(line, soft_wrap=True)
                if answer is not None:
                    console.print(Text.assemble(("answer   ", "dim"), answer), soft_wrap=True)
                counts = f"{_counts(row, self.ids, answered=answer is not None)}\n"
                console.print(counts, style="dim", highlight=False, soft_wrap=True)

    def _header(self, row: Batch) -> str:
        window, source = int(row[INFO_PREFIX + "window"]), int(row.get(SOURCE, 0))
        rows = self.batches.sources[source]
        origins = map(rows.store.origin, rows.documents(window))
        shown = [f"{name}:{record}" for name, record in origins]
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        of = f"  of {self.names[source]}" if self.names else ""
        where = f"{of}  window {window}  from {', '.join(shown[:3])}{more}"
        return f"row {row[INFO_PREFIX + 'row']}{where}"

    def _answer(self, row: Batch) -> str | None:
        """What is right, of a labelled example whose targets are no tokens; else None."""
        rows = self.batches.sources[int(row.get(SOURCE, 0))]
        if not isinstance(rows, ExampleRows) or rows.objective.writes is not None:
            return None
        reference = rows.examples[int(row[INFO_PREFIX + "window"])].reference
        return " ".join(reference) if isinstance(reference, list) else str(reference)

    def _text(self, tokens: list[Shown]) -> Text:
        text = Text()
        for part, style in self._runs(tokens):
            text.append(part, style=style)
        return text

    def _runs(self, tokens: list[Shown]) -> Iterator[tuple[str, str]]:
        """(text, style) of maximal runs: plain ids of one style decode together."""
        run: list[int] = []
        style = ""
        for shown in tokens:
            name = self._name(shown.token)
            if run and (name is not None or shown.style != style):
                yield self.tokenizer.decode(run), style
                run = []
            style = shown.style
            if name is None:
                run.append(shown.token)
            else:
                yield name, _SPECIAL_STYLE
            if shown.hides is not None:
                if run:
                    yield self.tokenizer.decode(run), style
                    run = []
                if shown.hides == shown.token:
                    yield "{=}", "dim"
                else:
                    yield f"{{{self.tokenizer.piece(shown.hides)}}}", _HIDDEN_STYLE
        if run:
            yield self.tokenizer.decode(run), style

    def _name(self, token: int) -> str | None:
        """How an id that is no text is called; None for text."""
        if token >= self.ids.num_ids:
            return f"<extra_id_{self.ids.sentinel(token)}>"  # as T5 calls them
        return self.tokenizer.piece(token) if token in self.ids.special else None


def _sequences(
    row: Batch, ids: Ids, *, answered: bool = False
) -> Iterator[tuple[str, list[Shown]]]:
    """(name, tokens) of what the row's model reads and, unless shown there or else, predicts."""
    hidden = {} if answered else _hidden(row)
    for name, prefix in _ROW_FIELDS:
        if f"{prefix}inputs" not in row:
            continue
        tokens, segment_ids = row[f"{prefix}inputs"].tolist(), row[f"{prefix}segment_ids"].tolist()
        here = {} if prefix else hidden
        yield (
            name,
            [
                _replaced(token, here[t], ids) if t in here else Shown(token, _style(segment))
                for t, (token, segment) in enumerate(zip(tokens, segment_ids, strict=True))
                if segment
            ],
        )
    if not hidden and not answered:
        fields = (row[name].tolist() for name in ("targets", "content_weights", "segment_ids"))
        yield (
            "targets  ",
            [
                Shown(token, "" if content else "dim")
                for token, content, segment in zip(*fields, strict=True)
                if segment
            ],
        )


def _hidden(row: Batch) -> dict[int, int]:
    """{position: id that stood there} where only some positions predict."""
    if "predict_at" not in row:
        return {}
    used = row["weights"] > 0
    return dict(zip(row["predict_at"][used].tolist(), row["targets"][used].tolist(), strict=True))


def _replaced(token: int, target: int, ids: Ids) -> Shown:
    style = _KEPT_STYLE if token == target else _RANDOM_STYLE
    return Shown(token, _SPECIAL_STYLE if token == ids.mask else style, hides=target)


def _style(segment: int) -> str:
    return _SEGMENT_STYLES[(segment - 1) % len(_SEGMENT_STYLES)]


def _counts(row: Mapping[str, np.ndarray], ids: Ids, *, answered: bool) -> str:
    parts = []
    for name, prefix in _ROW_FIELDS:
        if f"{prefix}inputs" in row:
            segment_ids = row[f"{prefix}segment_ids"]
            length, padding = len(segment_ids), int((segment_ids == 0).sum())
            parts.append(
                f"{name.strip()}: {length} ids, {segment_ids.max()} segments, {padding} padding"
            )
    predicted, content = (int((row[n] > 0).sum()) for n in ("weights", "content_weights"))
    given = f", {predicted - content} of them given away" * (content < predicted)
    parts.append(f"{predicted} predictions{given}")
    hidden = {} if answered else _hidden(row)
    if hidden:
        kept = sum(int(row["inputs"][t]) == target for t, target in hidden.items())
        masked = sum(int(row["inputs"][t]) == ids.mask for t in hidden)
        parts.append(f"{masked} masked, {len(hidden) - masked - kept} random, {kept} kept")
    return "; ".join(parts)


def arrays(batches: TrainBatches, steps: range) -> Batch:
    """All fields of the steps' batches, stacked [steps, ...]."""
    made = [batches(step) for step in steps]
    return {
        name.removeprefix(INFO_PREFIX): np.stack([batch[name] for batch in made])
        for name in made[0]
    }
