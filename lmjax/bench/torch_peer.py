"""Training steps of transformers' PyTorch model, in a process of its own.

    python -m lmjax.bench.torch_peer FOLDER KIND     KIND: eager or compiled

The folder holds what `lmjax.bench.training` writes: the model as exported, batches in their words
(batch_0.npz, ...), settings.json. Each line of standard input asks for a block of at least so many
seconds; each line of standard output answers with JSON. So neither library's memory and threads are
in the other's way: one waits at its pipe while the other computes.

As an informed user of PyTorch trains: scaled-dot-product attention where the class has it, fused
AdamW, autocast to bfloat16 on a GPU, TF32 elsewhere.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np


class Peer:
    """A model of transformers that is trained on, whatever the batches."""

    def __init__(self, folder: Path, kind: str) -> None:
        import torch

        self._torch = torch
        self._settings = json.loads((folder / "settings.json").read_text())
        torch.set_num_threads(self._settings["threads"])
        self._device = torch.device("cuda" if self._settings["on_gpu"] else "cpu")
        torch.set_float32_matmul_precision("high" if self._settings["on_gpu"] else "highest")
        self.attention = ""
        self._model = self._load(folder / "model")
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = self._make_optimizer()
        self._forward = torch.compile(self._model) if kind == "compiled" else self._model
        self._batches = cycle(list(self._read(folder)))

    def _load(self, folder: Path) -> Any:
        import transformers

        transformers.logging.set_verbosity_error()
        cls = getattr(
            transformers, json.loads((folder / "config.json").read_text())["architectures"][0]
        )
        try:
            model = cls.from_pretrained(folder, attn_implementation="sdpa", dtype="float32")
            self.attention = "sdpa"
        except ValueError:  # the class has none
            model = cls.from_pretrained(folder, dtype="float32")
            self.attention = "eager"
        model.config.use_cache = False
        return model.to(self._device).train()

    def _make_optimizer(self) -> Any:
        """Weight decay as lmjax has it: of matrices alone."""
        settings = self._settings["optimizer"]
        decayed = [p for p in self._parameters if p.ndim > 1]
        others = [p for p in self._parameters if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": settings["weight_decay"]},
            {"params": others, "weight_decay": 0.0},
        ]
        return self._torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=settings["learning_rate"],
            betas=(settings["beta1"], settings["beta2"]),
            eps=settings["epsilon"],
            fused=True,
        )

    def _read(self, folder: Path) -> Iterator[list[dict[str, Any]]]:
        """Micro-batches of each step."""
        for number in range(self._settings["num_batches"]):
            with np.load(folder / f"batch_{number}.npz", allow_pickle=False) as fields:
                whole = {name: self._torch.from_numpy(fields[name]) for name in fields.files}
            size = self._settings["micro_rows"]
            rows = len(next(iter(whole.values())))
            yield [
                {name: value[i : i + size].to(self._device) for name, value in whole.items()}
                for i in range(0, rows, size)
            ]

    def step(self) -> Any:
        """One update; returns the loss, still on the device."""
        torch, micro = self._torch, next(self._batches)
        predicted = (
            [int((batch["labels"] >= 0).sum()) for batch in micro] if len(micro) > 1 else [1]
        )
        loss = 0.0
        for batch, weight in zip(micro, predicted, strict=True):
            with torch.autocast(
                self._device.type, torch.bfloat16, enabled=self._settings["dtype"] == "bfloat16"
            ):
                part = self._forward(**batch).loss * (weight / sum(predicted))
            part.backward()
            loss = loss + part.detach()
        if (most := self._settings["optimizer"]["clip_norm"]) is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, most)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss

    def block(self, min_steps: int, min_seconds: float) -> dict[str, float]:
        """Steps a second of a block, and the last loss."""
        num_steps, behind, began = 0, None, time.perf_counter()
        while num_steps < min_steps or time.perf_counter() - began < min_seconds:
            loss = self.step()
            if behind is not None:
                behind.item()  # one step behind, as ours
            behind, num_steps = loss, num_steps + 1
        last = behind.item()
        if self._settings["on_gpu"]:
            self._torch.cuda.synchronize()
        return {"rate": num_steps / (time.perf_counter() - began), "loss": last}

    def memory(self) -> int | None:
        """Most bytes that tensors ever took of a GPU; None on a CPU, where nobody counts."""
        return self._torch.cuda.max_memory_allocated() if self._settings["on_gpu"] else None


def main(folder: str, kind: str) -> None:
    """Answers each line with a block; what the libraries print goes to standard error."""
    out, sys.stdout = sys.stdout, sys.stderr
    say = lambda what: print(json.dumps(what), file=out, flush=True)
    try:
        peer = Peer(Path(folder), kind)
        say({"attention": peer.attention})
        for line in sys.stdin:
            request = json.loads(line)
            say({**peer.block(request["steps"], request["seconds"]), "memory": peer.memory()})
    except Exception as error:
        say(
            {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
