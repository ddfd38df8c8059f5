"""Training steps timed: tokens a second, share of the machine's rate, memory; beside PyTorch's.

Contenders train by turns, in blocks of a second or so with batches that lie ready; what counts are
medians over the blocks and, of ratios, over rounds: other work on a machine comes and goes. Real
tokens are those that `metrics.jsonl` counts. The rate of a large matrix product is measured in
every round, too, so that each figure can be read as a share of what the machine has to give.

The peer is transformers' class for the same model, from the same weights, with the same batches,
compute type and optimizer (AdamW, which both have), without dropout; attention of a stream's rows
goes over all their documents, as transformers does it. Its first loss has to be ours: else it would
not be the same work.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from lmjax import chips, fields, flops
from lmjax.batch import Batch, device_fields, num_real_tokens
from lmjax.bench.stepper import Stepper
from lmjax.config import Config
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.errors import UserError
from lmjax.export import to_hf
from lmjax.train import data as data_lib
from lmjax.train import describe, setup, workdir
from lmjax.train import device as device_lib
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.data import Stores
from lmjax.train.setup import Program
from lmjax.train.workdir import RunConfig

PEERS = {"eager": "transformers, eager", "compiled": "transformers, torch.compile"}
OURS = "lmjax"

_READY = 4  # batches made beforehand
_BLOCK_SECONDS, _BLOCK_STEPS = 1.0, 2
_LOSS_TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}
_IGNORED = -100  # PyTorch's label of what is not predicted


@dataclass(frozen=True)
class Rate:
    """Of one contender.

    Attributes:
      tokens: real ones trained a second.
      seconds: of a step.
      ratio: of the tokens of lmjax to these, median over rounds.
      rounds: blocks that these are the medians of.
      first_seconds: of the first step, compilation included.
      loss: of the first step.
      memory: bytes that a step takes; None: not known.
      note: how it computes attention.
    """

    tokens: float
    seconds: float
    ratio: float
    rounds: int
    first_seconds: float
    loss: float
    memory: int | None
    note: str = ""


@dataclass(frozen=True)
class Training:
    """What was measured.

    Attributes:
      rates: by contender.
      failed: contenders without a figure, and why.
      flops: model FLOPs of a step (`lmjax.flops`).
      matmul: FLOP/s of a large matrix product in the compute type, best of all rounds.
      peak: datasheet FLOP/s of the chip; None: not known.
      estimated: bytes of a step by part, as `lmjax.flops` counts them.
    """

    rates: dict[str, Rate]
    failed: dict[str, str]
    flops: float
    matmul: float
    peak: float | None
    estimated: dict[str, int]

    def share(self, rate: Rate) -> float:
        """Of the matrix product's rate."""
        return self.flops / rate.seconds / self.matmul

    def mfu(self, rate: Rate) -> float | None:
        """Of the datasheet's peak."""
        return None if self.peak is None else self.flops / rate.seconds / self.peak

    def as_dict(self) -> dict[str, Any]:
        found = asdict(self)
        for name, rate in self.rates.items():
            found["rates"][name] |= {"matmul_share": self.share(rate), "mfu": self.mfu(rate)}
        return found


def comparable(config: Config) -> Config:
    """A config whose steps transformers can make, too."""
    changes: dict[str, Any] = {
        "optimizer.name": "adamw",
        "optimizer.weight_decay": 0.01,  # of all matrices, in either library
        "model.dropout": 0.0,
    }
    if config.data.packing == "stream":
        changes["data.cross_documents"] = True
    return fields.replace(config, changes)


def measure(
    config: Config, stores: Stores, seconds: float = 60.0, peers: Sequence[str] = ()
) -> Training:
    """Times training steps of a config on all devices, by turns with peers.

    Args:
      config: resolved; of `comparable` where there are peers.
      stores: its text.
      seconds: how long in all, first steps apart.
      peers: of `PEERS`.

    Raises:
      UserError: a peer's first loss is not ours, or no stock class has this model.
    """
    program = setup.make_program(config, ids=setup.make_ids(config, stores.tokenizer))
    made = data_lib.all_train_batches(config, stores, program.objective)
    tables = data_lib.open_data(config, stores, program.objective, program.eval_objective).tables
    batches = [made(i) for i in range(_READY)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(program.context())
        ours = Ours(program, setup.make_steps(program, tables), batches)
        contenders: dict[str, Ours | Peer] = {OURS: ours}
        if peers:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            _write(folder, program, ours.stepper.state, stores.tokenizer, batches)
            contenders |= {name: stack.enter_context(Peer(folder, name)) for name in peers}
        failed = {}
        for name in list(contenders):
            try:
                contenders[name].first()
            except _PeerError as error:
                failed[name] = str(error)
                del contenders[name]
        _check_losses(contenders, program.model.dtype.name)
        rates, matmul = _rounds(contenders, _real_tokens(batches), program, seconds)
    per_row = flops.flops_per_row(config.model, program.row)
    return Training(
        rates,
        failed,
        per_row.full * config.train.global_batch_size,
        matmul,
        chips.peak_flops(program.device.device_kind),
        describe.memory(program),
    )


class Ours:
    """The training step of lmjax."""

    note = ""

    def __init__(self, program: Program, steps: setup.Steps, batches: Sequence[Batch]) -> None:
        self._program, self._steps = program, steps
        self._batches = itertools.cycle(batches)
        self._example = batches[0]
        self.stepper = Stepper(steps, program.init())
        self.loss = self.first_seconds = 0.0

    def first(self) -> None:
        """The first step, compiled whatever earlier processes left."""
        with _nothing_compiled_before():
            began = time.perf_counter()
            state, metrics = self._steps(self.stepper.state, next(self._batches), False)
            self.loss = float(metrics["loss"])
            self.stepper.state = state
            self.first_seconds = time.perf_counter() - began

    def block(self, min_steps: int, min_seconds: float) -> float:
        """Steps a second."""
        return self.stepper.block(self._batches, min_steps, min_seconds)

    @property
    def memory(self) -> int | None:
        """Bytes that the compiled step takes on each device, by XLA's account."""
        micro = self._steps.micro_batches(self._example)
        return self._steps.train_step.memory(self.stepper.state, micro)


@contextlib.contextmanager
def _nothing_compiled_before() -> Iterator[None]:
    """Without JAX's cache of compiled programs, which asks only once whether it is there."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


class _PeerError(Exception):
    """A peer cannot take part."""


class Peer:
    """A process of `lmjax.bench.torch_peer`, from its first step to the end of the `with` block."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._command = [sys.executable, "-m", "lmjax.bench.torch_peer", str(folder), kind]
        self._process: subprocess.Popen | None = None
        self.loss = self.first_seconds = 0.0
        self.memory: int | None = None
        self.note = ""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def first(self) -> None:
        """Starts the process and makes its first step, so that nothing else computes meanwhile.

        Raises:
          _PeerError: it made none.
        """
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"},
        )
        self.note = self._answer()["attention"]
        began = time.perf_counter()
        self.loss = self._asked(steps=1, seconds=0.0)["loss"]
        self.first_seconds = time.perf_counter() - began

    def block(self, min_steps: int, min_seconds: float) -> float:
        """Steps a second."""
        found = self._asked(steps=min_steps, seconds=min_seconds)
        self.memory = found["memory"]
        return found["rate"]

    def _asked(self, **request: float) -> dict[str, Any]:
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise _PeerError(f"its process ended with code {self._process.wait()}")
        found = json.loads(line)
        if "error" in found:
            raise _PeerError(found["error"])
        return found


def _write(
    folder: Path,
    program: Program,
    state: Any,
    tokenizer: AnyTokenizer,
    batches: Sequence[Batch],
) -> None:
    """All that a peer reads."""
    config, run, model = program.config, folder / "run", folder / "model"
    (run / "tokenizer").mkdir(parents=True)
    model.mkdir()
    checkpoints = Checkpoints(run / "checkpoints")
    checkpoints.save(0, state, {"seed": config.train.seed})
    checkpoints.close()
    tokenizer.save(run / "tokenizer")
    workdir.write(str(run), RunConfig(config, None))
    to_hf.export(str(run), str(model), progress=lambda *_: None, with_tokenizer=False)
    for number, batch in enumerate(batches):
        np.savez(folder / f"batch_{number}.npz", **_in_their_words(config, batch))
    optimizer = config.optimizer
    settings = {
        "num_batches": len(batches),
        "micro_rows": program.micro_rows,
        "dtype": program.model.dtype.name,
        "on_gpu": program.device.platform == "gpu",
        "threads": len(os.sched_getaffinity(0)),
        "optimizer": {
            name: getattr(optimizer, name)
            for name in ("learning_rate", "beta1", "beta2", "epsilon", "weight_decay", "clip_norm")
        },
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def _in_their_words(config: Config, batch: Batch) -> dict[str, np.ndarray]:
    """Arguments of a class of transformers."""
    found = device_fields(batch)
    labels = np.where(found["weights"] > 0, found["targets"], _IGNORED).astype(np.int64)
    if config.model.architecture == "encoder":
        at_BP, labels_BT = found["predict_at"], np.full(found["inputs"].shape, _IGNORED, np.int64)
        rows, columns = np.nonzero(found["weights"] > 0)
        labels_BT[rows, at_BP[rows, columns]] = labels[rows, columns]
        return _masked("attention_mask", found["segment_ids"]) | {
            "input_ids": found["inputs"].astype(np.int64),
            "labels": labels_BT,
        }
    if config.model.architecture == "decoder":
        return _masked("attention_mask", found["segment_ids"]) | {
            "input_ids": found["inputs"].astype(np.int64),
            "labels": labels,
            "shift_labels": labels,  # already one ahead
        }
    return _masked("attention_mask", found["enc_segment_ids"]) | {
        "input_ids": found["enc_inputs"].astype(np.int64),
        "decoder_input_ids": found["inputs"].astype(np.int64),
        "labels": labels,
    }


def _masked(name: str, segment_ids_BT: np.ndarray) -> dict[str, np.ndarray]:
    """A mask of padding; none where there is no padding, which is faster for them."""
    real_BT = segment_ids_BT > 0
    return {} if real_BT.all() else {name: real_BT.astype(np.int64)}


def _check_losses(contenders: Mapping[str, Ours | Peer], dtype: str) -> None:
    mine = contenders[OURS].loss
    for name, contender in contenders.items():
        if not abs(contender.loss - mine) <= _LOSS_TOLERANCE[dtype] * mine:
            raise UserError(
                f"the first loss of {PEERS[name]} is {contender.loss:.5f} and not {mine:.5f}, so "
                "it does other work; compare a config whose model, objective and packing "
                "transformers has, too"
            )


def _real_tokens(batches: Sequence[Batch]) -> float:
    """Of an average batch."""
    return statistics.mean(float(num_real_tokens(device_fields(batch))) for batch in batches)


def _rounds(
    contenders: Mapping[str, Ours | Peer], tokens: float, program: Program, seconds: float
) -> tuple[dict[str, Rate], float]:
    """Blocks of all contenders in turn, for about so long and at least once."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    matmul, end = 0.0, time.monotonic() + seconds
    block = min(_BLOCK_SECONDS, seconds / len(contenders))
    while time.monotonic() < end or not found[OURS]:
        measured = device_lib.matmul_flops(program.device, program.model.dtype, block / 4)
        matmul = max(matmul, measured)
        for name, contender in contenders.items():
            found[name].append(contender.block(_BLOCK_STEPS, block))
    rates = {}
    for name, contender in contenders.items():
        median = statistics.median(found[name])
        ratio = statistics.median(b / a for a, b in zip(found[name], found[OURS], strict=True))
        rates[name] = Rate(
            median * tokens,
            1 / median,
            ratio,
            len(found[name]),
            contender.first_seconds,
            contender.loss,
            contender.memory,
            contender.note,
        )
    return rates, matmul
