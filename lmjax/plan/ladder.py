"""A ladder: small models of one variant, trained on a text as ordinary runs, and what they reached.

Its runs differ in size and in length, so that the loss can be fitted against both; each is a run of
its own from the first step on and ends with its rate cooled down, for what is read off in the
middle of a schedule is no end. `climbing` trains them.
"""

from __future__ import annotations

import os
import pprint
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmjax import flops
from lmjax.data import cache, files
from lmjax.data.store import Store
from lmjax.errors import UserError
from lmjax.plan.scaling import Points
from lmjax.plan.variants import Shape, Shares, Variant
from lmjax.train import metrics

Tell = Callable[[str], None]

# Over the same text; up to there it is worth as much as new: Muennighoff et al. 2023.
MAX_PASSES = 4
ABOVE_PLATEAU = 0.4  # nats that the loss must lie below that of word frequencies
_HELD_OUT_BYTES, _MOST_HELD_OUT = 250_000, 0.1
_EVAL_ROWS = 512
_METRICS = "metrics.jsonl"
_START_FLOPS = 4e11  # what starting a run takes, as if it were steps
_HEAD = '''"""{about}; written by tools/plan.py."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
'''


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
      vocab_size: ids of the tokenizer.
      tokens: of the longest runs; None: the variant's own.
      shares: of that, for the runs of each rung; None: the variant's own.
      rungs: their shapes; None: the variant's own.
    """

    vocab_size: int = 4096
    tokens: int | None = None
    shares: Shares | None = None
    rungs: tuple[Shape, ...] | None = None


@dataclass(frozen=True)
class Text:
    """The text, tokenised.

    Attributes:
      path: as it was given.
      store: its tokens, folder.
      num_tokens: to train on.
      num_bytes: of UTF-8, to train on.
      held_out: tokens that are held out.
      num_documents: of both.
    """

    path: str
    store: str
    num_tokens: int
    num_bytes: int
    held_out: int
    num_documents: int

    @property
    def bytes_per_token(self) -> float:
        """Of this text, by the ladder's vocabulary."""
        return self.num_bytes / self.num_tokens


def prepare(path: str, folder: Path, size: Size, tell: Tell) -> Text:
    """Trains the ladder's tokenizer and tokenises the text, once.

    Args:
      path: raw text, as `data.files.find_files` understands it.
      folder: where both are kept.
      size: of the ladder.
      tell: is told what goes on.

    Raises:
      UserError: no text, or a store, which has another tokenizer.
    """
    if Path(path).is_dir() and (Path(path) / "manifest.json").exists():
        raise UserError(
            f"--data={path} is a prepared store, and the ladder has a small vocabulary of its own; "
            "give the raw text"
        )
    on_disk = sum(max(1, os.path.getsize(file)) for file in files.find_files(path))
    store = cache.ensure_store(
        path,
        tokenizer_path=None,
        vocab_size=size.vocab_size,
        model_type="bpe",
        character_coverage=0.9995,
        sample_bytes=20_000_000,
        text_key="text",
        text_split="file",
        eval_fraction=round(min(max(_HELD_OUT_BYTES / on_disk, 0.01), _MOST_HELD_OUT), 3),
        cache_dir=str(folder),
        num_workers=None,
        log=tell,
    )
    train, held_out = (Store.open(store, split) for split in ("train", "eval"))
    documents = train.num_documents + held_out.num_documents
    sizes = (train.num_tokens, train.num_bytes, held_out.num_tokens)
    return Text(path, store, *sizes, documents)


@dataclass(frozen=True, eq=False)
class Rung:
    """One run of a ladder.

    Attributes:
      variant, shape: of its model.
      tokens: of text that it trains on.
      text: that it trains on.
      size: of the ladder.
      folder: of the ladder's runs.
    """

    variant: Variant
    shape: Shape
    tokens: int
    text: Text
    size: Size
    folder: Path

    @property
    def name(self) -> str:
        """Of its workdir."""
        name = f"{self.variant.name}_{self.shape.hidden_size}x{self.shape.num_layers}"
        return f"{name}_{self.tokens // 1000}k"

    @property
    def workdir(self) -> Path:
        """Where it is trained."""
        return self.folder / self.name

    @property
    def num_steps(self) -> int:
        """Of the run."""
        return self.fields()["train"]["num_steps"]

    @property
    def flops(self) -> float:
        """That the run takes, about, with its start."""
        model = self.variant.model_config(self.shape, self.size.vocab_size)
        rows = self.num_steps * self.variant.rows
        return _START_FLOPS + rows * flops.flops_per_row(model, self.variant.lengths()).full

    @property
    def num_params(self) -> int:
        """Parameters of its blocks."""
        return self.variant.num_params(self.shape)

    def fields(self) -> dict[str, Any]:
        """Nested fields of the run."""
        fields = self.variant.fields(self.shape, self.tokens, self.size.vocab_size)
        last = fields["train"]["num_steps"]
        fields["data"] |= {"path": self.text.store}
        fields["checkpoint"] = {"every": max(200, last // 4), "keep": 1}
        fields["eval"] = {"every": last, "num_batches": _EVAL_ROWS // self.variant.rows}
        return fields | {"log": {"every": max(1, min(20, last // 20))}}

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Rows of its metrics up to now."""
        return [row for row in metrics.read(self.workdir / _METRICS) if row["split"] == split]

    def progress(self) -> float:
        """Share of its steps that are done."""
        rows = self.rows("train")
        return rows[-1]["step"] / self.num_steps if rows else 0.0

    def result(self) -> dict[str, Any] | None:
        """The evaluation at its end; None: it has not come to it."""
        return next((row for row in self.rows("eval") if row["step"] == self.num_steps), None)

    def write_config(self) -> Path:
        """Writes its config file, and returns where it is."""
        file = self.folder / f"{self.name}.py"
        about = f"{self.variant.name}, {self.shape}, {self.tokens:,} tokens"
        content = config_file(about, self.fields())
        if not file.exists() or file.read_text() != content:
            file.write_text(content)
        return file


def config_file(about: str, fields: dict[str, Any]) -> str:
    """The content of a config file of these nested fields."""
    body = pprint.pformat(fields, indent=4, width=92, sort_dicts=False, underscore_numbers=True)
    body = body.replace("\n", "\n    ")
    return f"{_HEAD.format(about=about)}    return ConfigDict({body})\n"


def rungs(variant: Variant, text: Text, folder: Path, size: Size) -> list[Rung]:
    """The runs of a ladder, the most work first.

    Raises:
      UserError: there is too little text.
    """
    most = size.tokens or variant.tokens
    if most > MAX_PASSES * text.num_tokens:
        raise UserError(_too_little(text, most))
    found = [
        Rung(variant, shape, round(share * most), text, size, folder)
        for shape, shares in zip(
            size.rungs or variant.rungs, size.shares or variant.shares, strict=True
        )
        for share in shares
    ]
    return sorted(found, key=lambda rung: -rung.flops)


def _too_little(text: Text, most: int) -> str:
    """Why a text is no text for a ladder whose longest runs have `most` tokens."""
    least = most / MAX_PASSES * text.bytes_per_token / 1e6
    return (
        f"{text.path} has {text.num_bytes / 1e6:.2g} MB to train on, and a ladder needs "
        f"{least:.2g} MB to say anything; get more text, or go on from a published model "
        "(docs/choose.md)"
    )


def points(runs: Sequence[Rung], below: float = ABOVE_PLATEAU) -> Points:
    """What the finished runs reached: held-out content losses.

    Args:
      runs: from `rungs`, trained.
      below: nats below the loss of word frequencies that a model has to be.

    Raises:
      UserError: one has learnt little more than how frequent words are, which says nothing.
    """
    for rung, row in _results(runs):
        unigram = row["content_unigram_loss"]
        if row["content_loss"] > unigram - below:
            raise UserError(
                f"no fit: the rung of {rung.shape} on {rung.tokens / 1e6:.3g}M tokens has a "
                f"held-out loss of {row['content_loss']:.2f}, and word frequencies alone give "
                f"{unigram:.2f}: it does not use context yet, so its loss says nothing of larger "
                "ones; give more text or cleaner text"
            )
    values = [(rung.num_params, rung.tokens, row["content_loss"]) for rung, row in _results(runs)]
    return Points(*(np.array(column, float) for column in zip(*values, strict=True)))


def _results(runs: Sequence[Rung]) -> Iterator[tuple[Rung, dict[str, Any]]]:
    for rung in sorted(runs, key=lambda rung: (rung.num_params, rung.tokens)):
        yield rung, rung.result()


def table(runs: Sequence[Rung]) -> list[dict[str, Any]]:
    """The finished runs as JSON has them, small ones first."""
    return [
        {
            "shape": str(rung.shape),
            "params": rung.num_params,
            "tokens": rung.tokens,
            "steps": rung.num_steps,
            "flops": rung.flops,
            "loss": row["content_loss"],
            "unigram": row["content_unigram_loss"],
            "tokens_per_second": rung.rows("train")[-1]["tokens_per_second"],
        }
        for rung, row in _results(runs)
    ]
