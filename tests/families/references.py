"""Stored logits of transformers; the weights need none, names and shapes decide them."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

FOLDER = Path(__file__).parent / "references"


@dataclass(frozen=True)
class Reference:
    """What transformers computed of a small model.

    Attributes:
      config: content of its config.json.
      shapes: of its tensors by name, as they are saved.
      batch: fields of a batch.
      logits: [B, T, V].
    """

    config: dict
    shapes: dict[str, list[int]]
    batch: dict[str, np.ndarray]
    logits: np.ndarray

    def write_model(self, folder: Path) -> None:
        """The model as a folder of transformers."""
        write_model(folder, self.config, self.shapes)

    def save(self, name: str) -> None:
        """Stores it."""
        texts = {"config": json.dumps(self.config), "shapes": json.dumps(self.shapes)}
        fields = {f"batch/{k}": v.astype(np.uint8) for k, v in self.batch.items()}
        np.savez_compressed(FOLDER / f"{name}.npz", **texts, **fields, logits=self.logits)


def load(name: str) -> Reference:
    """A stored one."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        config, shapes = (json.loads(str(stored[k])) for k in ("config", "shapes"))
        names = [k for k in stored.files if k.startswith("batch/")]
        batch = {k.removeprefix("batch/"): stored[k].astype(np.int32) for k in names}
        return Reference(config, shapes, batch, stored["logits"])


def write_model(folder: Path, config: dict, shapes: dict[str, list[int]]) -> None:
    """A folder of transformers with these weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor(name, shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def tensor(name: str, shape: list[int]) -> np.ndarray:
    """float32 numbers around 0, or around 1 where they scale a norm's result."""
    uniform = np.random.default_rng(zlib.crc32(name.encode())).random(shape)
    is_scale = name.endswith("weight") and len(shape) == 1
    width = 2.0 if name == "shared.weight" else 0.6  # T5 scales its logits down
    return (width * (uniform - 0.5) + is_scale).astype(np.float32)
