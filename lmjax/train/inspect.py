"""Shows what the model is fed: any step's batch as text, or as arrays.

Inputs are decoded in the runs in which the model sees them; neighbouring segments differ in colour,
special tokens stand out by name, padding is counted. Targets follow, the unweighted ones dim.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.text import Text

from lmjax.batch import INFO_PREFIX, Batch
from lmjax.data.pipeline import TrainBatches
from lmjax.data.store import Store
from lmjax.data.tokenizer import Tokenizer

_SEGMENT_STYLES = ("cyan", "yellow", "green", "magenta")
_SPECIAL_STYLE = "bold reverse"


def show(
    console: Console,
    batches: TrainBatches,
    tokenizer: Tokenizer,
    store: Store,
    steps: range,
    max_rows: int,
) -> None:
    """Prints the first `max_rows` rows of each step's batch."""
    for step in steps:
        batch = batches(step)
        num_rows = len(batch["inputs"])
        console.rule(f"step {step}: {num_rows} rows, showing {min(max_rows, num_rows)}")
        for row in range(min(max_rows, num_rows)):
            console.print(_header(batch, row, batches, store), style="bold", highlight=False)
            segment_ids = batch["segment_ids"][row]
            console.print(
                Text("inputs   ", style="dim")
                + _render(tokenizer, batch["inputs"][row], [_style(s) for s in segment_ids]),
                soft_wrap=True,
            )
            weights = batch["weights"][row]
            console.print(
                Text("targets  ", style="dim")
                + _render(tokenizer, batch["targets"][row], ["" if w else "dim" for w in weights]),
                soft_wrap=True,
            )
            padding = int((segment_ids == 0).sum())
            console.print(
                f"{int(segment_ids.max())} segments, {padding} padding, "
                f"{int((weights > 0).sum())} predictions\n",
                style="dim",
                highlight=False,
            )


def arrays(batches: TrainBatches, steps: range) -> Batch:
    """All fields of the steps' batches, stacked [steps, ...]."""
    made = [batches(step) for step in steps]
    return {
        name.removeprefix(INFO_PREFIX): np.stack([batch[name] for batch in made])
        for name in made[0]
    }


def _header(batch: Batch, row: int, batches: TrainBatches, store: Store) -> str:
    window = int(batch[INFO_PREFIX + "window"][row])
    _, documents = batches.windows.read(np.array([window]))
    shown = [f"{name}:{record}" for name, record in map(store.origin, _distinct(documents[0]))]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return f"row {row}  window {window}  from {', '.join(shown[:3])}{more}"


def _distinct(documents: np.ndarray) -> list[int]:
    return [int(d) for d in np.unique(documents) if d >= 0]


def _style(segment: int) -> str:
    return "dim" if segment == 0 else _SEGMENT_STYLES[(segment - 1) % len(_SEGMENT_STYLES)]


def _render(tokenizer: Tokenizer, ids: np.ndarray, styles: list[str]) -> Text:
    text = Text()
    for part, style in _runs(tokenizer, ids, styles):
        text.append(part, style=style)
    return text


def _runs(tokenizer: Tokenizer, ids: np.ndarray, styles: list[str]) -> Iterator[tuple[str, str]]:
    """(text, style) of maximal runs: plain ids decode together, special ones show their name."""
    run: list[int] = []
    for i, token in enumerate(ids):
        special = int(token) in tokenizer.special_ids
        if run and (special or styles[i] != styles[i - 1]):
            yield tokenizer.decode(run), styles[i - 1]
            run = []
        if not special:
            run.append(int(token))
        elif token != tokenizer.pad_id:
            yield tokenizer.piece(int(token)), _SPECIAL_STYLE
    if run:
        yield tokenizer.decode(run), styles[-1]
