"""What each switch of a training step is worth: the step as it is, and with one thing other.

All of them train by turns in one run, with the same batches lying ready; a row's figure is the
median over rounds of its steps a second to those of the step as it is.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np

from lmjax import fields
from lmjax.batch import Batch
from lmjax.bench.stepper import Stepper
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.nn.kernels.spec import kernels_of
from lmjax.nn.model import Model
from lmjax.train import data as data_lib
from lmjax.train import setup
from lmjax.train.data import Stores
from lmjax.train.setup import Program

AS_IS = "as it is"

_READY = 4  # batches made beforehand
_BLOCK_SECONDS, _BLOCK_STEPS = 0.5, 2
_DROPOUT = 0.1
_EVERY_LOGIT = "logits of every position"
_BIASES = {"encoder_bias", "stack_bias"}  # parameters of relative positions
_NO_BIAS_GRADIENT = "no gradient of the bias of attention"


@dataclass(frozen=True)
class Row:
    """Of one switch.

    Attributes:
      seconds: of a step.
      ratio: of its speed to that of the step as it is.
      memory: bytes of the compiled step on each device; None: not known.
      rounds: blocks that these are the medians of.
    """

    seconds: float
    ratio: float
    memory: int | None
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def switches(program: Program) -> dict[str, dict[str, Any]]:
    """What can be other than it is: name -> fields of the config."""
    config, platform = program.config, program.device.platform
    train, model, found = config.train, config.model, {}
    found |= {
        f"attention: {kernel}": {"train.attention": kernel} for kernel in kernels_of(platform)
    }
    found |= {
        "layers scanned": {"train.unroll_layers": False},
        "layers unrolled": {"train.unroll_layers": True},
        "dropout 0.1, threefry": {"model.dropout": _DROPOUT},
        "dropout 0.1, rbg": {"model.dropout": _DROPOUT, "train.prng": "rbg"},
        "dropout 0": {"model.dropout": 0.0},
        "remat: dots": {"train.remat": "dots"},
        "remat: full": {"train.remat": "full"},
    }
    if platform == "gpu":
        option = "xla_gpu_enable_latency_hiding_scheduler"
        found["latency-hiding scheduler"] = {"train.xla_options": ((option, "true"),)}
    if model.predicts_tokens:
        found["cross-entropy whole"] = {"train.loss_chunk": None}
        chunk = max(1, config.data.seq_len // 8)
        found[f"cross-entropy in chunks of {chunk}"] = {"train.loss_chunk": chunk}
    if model.position == "relative":
        found["no bias of attention"] = {"model.position": "none"}
    if config.data.packing == "stream":
        cross = not program.model.how.one_segment
        name = "attention over all documents" if cross else "attention within documents"
        found[name] = {"data.cross_documents": cross}
    as_it_is = {name: value for name, value, _ in fields.leaves(config)} | {
        "train.attention": program.model.how.kernel,  # what 'auto' came to
        "train.unroll_layers": program.model.unroll > 1,
        "train.loss_chunk": program.loss_chunk,
    }
    return {
        name: changes
        for name, changes in found.items()
        if any(as_it_is[field] != value for field, value in changes.items())
        and not (train.remat != "none" and name.startswith("remat"))
    }


def measure(config: Config, stores: Stores, seconds: float = 120.0) -> dict[str, Row]:
    """Times steps of a config with each switch, for about so long and at least a block of each.

    Args:
      config: resolved.
      stores: its text.
      seconds: how long in all, compilation apart.
    """
    made = _Contender(config, stores)
    contenders = {AS_IS: made}
    for name, changes in switches(made.program).items():
        with contextlib.suppress(UserError):  # what this objective or machine cannot
            contenders[name] = _Contender(fields.replace(config, changes), stores)
    if "predict_at" in made.batches[0]:
        contenders[_EVERY_LOGIT] = _Contender(config, stores, every_logit=True)
    if config.model.position == "relative":
        contenders[_NO_BIAS_GRADIENT] = _Contender(config, stores, bias_gradient=False)
    return _rounds(contenders, seconds)


class _Contender:
    """A step with its state."""

    def __init__(
        self,
        config: Config,
        stores: Stores,
        *,
        every_logit: bool = False,
        bias_gradient: bool = True,
    ) -> None:
        program = setup.make_program(config, ids=setup.make_ids(config, stores.tokenizer))
        if not bias_gradient:
            program = replace(program, model=_FrozenBias(program.model))
        made = data_lib.all_train_batches(config, stores, program.objective)
        data = data_lib.open_data(config, stores, program.objective, program.eval_objective)
        self.batches = [made(i) for i in range(_READY)]
        if every_logit:
            self.batches = [_ungathered(batch) for batch in self.batches]
        self.program, self._cycle = program, itertools.cycle(self.batches)
        with program.context():
            self._steps = setup.make_steps(program, data.tables)
            self._stepper = Stepper(self._steps, program.init())
            self._stepper.block(self._cycle, 1, 0.0)  # compiles
            micro = self._steps.micro_batches(self.batches[0])
            self.memory = self._steps.train_step.memory(self._stepper.state, micro)

    def block(self, seconds: float) -> float:
        """Steps a second."""
        with self.program.context():
            return self._stepper.block(self._cycle, _BLOCK_STEPS, seconds)


class _FrozenBias:
    """A model of relative positions that learns all but their bias."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def apply(self, variables: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        params = dict(variables["params"])
        for name in _BIASES & params.keys():
            params[name] = jax.tree.map(jax.lax.stop_gradient, params[name])
        return self._model.apply({**variables, "params": params}, *args, **kwargs)


def _ungathered(batch: Batch) -> Batch:
    """The same predictions as a batch whose every position has logits."""
    rows, found = np.arange(len(batch["inputs"]))[:, None], dict(batch)
    at_BP = found.pop("predict_at")
    for name in ("targets", "weights", "content_weights"):
        spread_BT = np.zeros(batch["inputs"].shape, batch[name].dtype)
        # Places without a prediction all say position 0, so those that have one come last.
        order = np.argsort(batch["weights"] > 0, axis=1, kind="stable")
        sort = lambda x, order=order: np.take_along_axis(x, order, axis=1)
        spread_BT[rows, sort(at_BP)] = sort(batch[name])
        found[name] = spread_BT
    return found


def _rounds(contenders: Mapping[str, _Contender], seconds: float) -> dict[str, Row]:
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    block, end = min(_BLOCK_SECONDS, seconds / len(contenders)), time.monotonic() + seconds
    while not rates[AS_IS] or time.monotonic() < end:
        for name, contender in contenders.items():
            rates[name].append(contender.block(block))
    return {
        name: Row(
            1 / statistics.median(found),
            statistics.median(a / b for a, b in zip(found, rates[AS_IS], strict=True)),
            contenders[name].memory,
            len(found),
        )
        for name, found in rates.items()
    }
