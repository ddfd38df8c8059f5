"""Shows what the model is fed: any step's batch as text, or as arrays.

Every sequence of the batch is decoded in the runs in which the model sees it: neighbouring segments
differ in colour, special tokens, sentinels and mode tokens stand out by name (that of an export:
UL2's R, S, X are <extra_id_128> and the two behind it), padding is counted. Where only some
positions predict, what stands there (the mask, a random token in red, or the token itself,
underlined) is followed by the hidden piece in braces, or by {=}. Else the targets follow; dim are
those that are given away or weigh nothing. What there is to show is said by `shown`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from lmjax.batch import INFO_PREFIX, Batch, Ids
from lmjax.data.pipeline import TrainBatches
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.train.shown import ROW_FIELDS, Shown, answer_of, header, hidden_of, name_of, sequences

_SEGMENT_STYLES = ("cyan", "yellow", "green", "magenta")
_SPECIAL_STYLE = "bold reverse"
_HIDDEN_STYLE = "dim strike"
_STYLES = {
    "target": "",
    "given": "dim",
    "mask": _SPECIAL_STYLE,
    "random": "bold red",
    "kept": "bold underline",
}


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
                console.print(header(row, self.batches, self.names), style="bold", highlight=False)
                answer = answer_of(row, self.batches)
                for name, tokens in sequences(row, self.ids, answered=answer is not None):
                    line = Text.assemble((f"{name:<9}", "dim"), self._text(tokens))
                    console.print(line, soft_wrap=True)
                if answer is not None:
                    console.print(Text.assemble(("answer   ", "dim"), answer), soft_wrap=True)
                counts = f"{_counts(row, self.ids, answered=answer is not None)}\n"
                console.print(counts, style="dim", highlight=False, soft_wrap=True)

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
            name, its_style = name_of(shown.token, self.tokenizer, self.ids), _style(shown)
            if run and (name is not None or its_style != style):
                yield self.tokenizer.decode(run), style
                run = []
            style = its_style
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


def _style(shown: Shown) -> str:
    if shown.kind == "read":
        return _SEGMENT_STYLES[(shown.segment - 1) % len(_SEGMENT_STYLES)]
    return _STYLES[shown.kind]


def _counts(row: Mapping[str, np.ndarray], ids: Ids, *, answered: bool) -> str:
    parts = []
    for name, prefix in ROW_FIELDS:
        if f"{prefix}inputs" in row:
            segment_ids = row[f"{prefix}segment_ids"]
            length, padding = len(segment_ids), int((segment_ids == 0).sum())
            parts.append(f"{name}: {length} ids, {segment_ids.max()} segments, {padding} padding")
    predicted, content = (int((row[n] > 0).sum()) for n in ("weights", "content_weights"))
    given = f", {predicted - content} of them given away" * (content < predicted)
    parts.append(f"{predicted} predictions{given}")
    hidden = {} if answered else hidden_of(row)
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
