"""Writes references/NAME.npz: what transformers computes of small models; needs [parity].

python tests/families/make_references.py
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import references
import theirs
from models import CASES, batch

NAMES = (
    "bert",
    "roberta",
    "modernbert",
    "gpt2",
    "bloom",
    "llama",
    "qwen3",
    "olmo2",
    "t5",
    "t5_own_head",
    "bart",
    "bart_own_head",
)
LENGTH, ROWS = 20, 3  # so that a file has less than 40 kB


def make(name: str, folder: Path) -> references.Reference:
    """One of them; `folder` is for what is needed on the way."""
    case = dataclasses.replace(CASES[name], length=LENGTH)
    saved = theirs.save(theirs.make(case), folder / "saved")
    config = json.loads((saved / "config.json").read_text())
    shapes = {k: list(v.shape) for k, v in theirs.tensors(saved).items()}
    references.write_model(folder / "model", config, shapes)
    fields = {k: v[:ROWS] for k, v in batch(case).items()}
    model = theirs.load(folder / "model", case.model_type)
    return references.Reference(config, shapes, fields, theirs.logits(model, case, fields))


if __name__ == "__main__":
    references.FOLDER.mkdir(exist_ok=True)
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            made = make(name, Path(folder))
        made.save(name)
        size = (references.FOLDER / f"{name}.npz").stat().st_size
        print(f"{name}: {size:,} bytes, largest logit {abs(made.logits).max():.1f}")
