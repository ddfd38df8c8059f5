"""Who is shown a run's numbers and samples beside the files of its workdir: TensorBoard, and W&B.

The files are the truth and what a resume cuts; a sink has to cope with rows that come again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from etils import epath

from lmjax.train.samples import Sample


class Sink(Protocol):
    """What gets all that is written; steps never go back."""

    def scalars(self, step: int, split: str, row: Mapping[str, float]) -> None:
        """A row of metrics, without `step` and `split`."""
        ...

    def texts(self, step: int, samples: Sequence[Sample]) -> None:
        """What the model made of some texts."""
        ...

    def flush(self) -> None:
        """What it got is where it belongs, as far as that can be waited for."""
        ...

    def close(self) -> None:
        """The last call."""
        ...


def _summary_writer() -> type:
    """tensorboardX's writer, imported as where PyTorch is not installed.

    It imports PyTorch wherever it finds it, for features that are not used here; that costs seconds
    and hundreds of megabytes. The import is slow enough to be left to the process that writes.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # makes `import torch` an ImportError, which it handles
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


class TensorBoard:
    """Writes event files; what an earlier process wrote from `purge_step` on is not shown."""

    def __init__(self, folder: epath.PathLike, *, purge_step: int):
        self._events = _summary_writer()(os.fspath(folder), purge_step=purge_step)

    def scalars(self, step: int, split: str, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def texts(self, step: int, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self._events.add_text(f"samples/{sample.index}", _markdown(sample), step)

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._events.close()


def _markdown(sample: Sample) -> str:
    """Its fields as blocks of code, in which no character means anything."""
    texts = {name: text for name, text in sample.fields.items() if name != "index"}
    return "\n\n".join(f"{name}\n\n{_block(text)}" for name, text in texts.items())


def _block(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])
