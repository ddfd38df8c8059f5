"""The one place that composes the rooms below: config -> program -> steps.

`Program` needs no data and allocates nothing: a dry run ends there. `Steps` compiles it, with the
tables that `lmjax.train.data` makes, into what the loop calls.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from lmjax import families, flops, objectives
from lmjax import fields as fields_lib
from lmjax.batch import Ids, Objective, device_fields, rows
from lmjax.config import Config
from lmjax.data import pieces as pieces_lib
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.errors import UserError
from lmjax.nn.kernels.spec import PLAINLY, How
from lmjax.nn.model import Model
from lmjax.optim.dims import axis_names
from lmjax.optim.optimizer import make_optimizer
from lmjax.optim.schedule import Schedule, make_schedule
from lmjax.parallel import mesh as mesh_lib
from lmjax.parallel import rules as rules_lib
from lmjax.train import device as device_lib
from lmjax.train import guard, loss, sizing, xla_options
from lmjax.train import state as state_lib
from lmjax.train.state import TrainState
from lmjax.train.step import Explained, TrainStep, make_eval_step

_UNROLL_UP_TO = 24  # layers; beyond, compile time grows faster than the gain (GPU experience)


def resolve(
    config: Config, tokenizer_size: int | None = None, labels: tuple[str, ...] = ()
) -> Config:
    """Fills what depends on other fields, so that a later override cannot bend it unseen.

    Args:
      config: as given.
      tokenizer_size: number of ids that the tokenizer was asked for; None: the config's.
      labels: names of the classes that the examples have; empty: there are none, or not known.

    Raises:
      UserError: an impossible combination.
    """
    changes: dict[str, Any] = {}
    if config.model.vocab_size is None:
        size = tokenizer_size or config.tokenizer.vocab_size
        changes["model.vocab_size"] = -(-(size + objectives.num_sentinels(config)) // 128) * 128
    if labels:
        changes |= {"objective.labels": labels, "model.num_labels": len(labels)}
    if config.schedule.decay_steps is None:
        changes["schedule.decay_steps"] = max(config.train.num_steps, config.schedule.warmup_steps)
    return fields_lib.replace(config, changes)


@dataclass(frozen=True)
class Program:
    """What a resolved config means on these devices; nothing is allocated yet."""

    config: Config
    objective: Objective
    eval_objective: Objective
    model: Model
    schedule: Schedule
    optimizer: optax.GradientTransformation
    mesh: Mesh
    batch_sharding: NamedSharding
    micro_rows: int
    loss_chunk: int | None
    abstract: TrainState
    shardings: TrainState
    axes: Any  # logical axis names of every parameter
    dtype_reason: str

    @property
    def num_micro(self) -> int:
        """Micro-batches of a step."""
        return self.config.train.global_batch_size // self.micro_rows

    @property
    def num_sources(self) -> int:
        """Texts that rows come from."""
        return len(self.config.data.paths)

    @property
    def rows_per_device(self) -> int:
        """Rows of a micro-batch on each device."""
        return self.batch_sharding.shard_shape((self.micro_rows,))[0]

    @property
    def split(self) -> flops.Split:
        """What of rows and state one device holds."""
        return rules_lib.split(self.mesh, rules_lib.table(self.config.mesh))

    @property
    def computing(self) -> flops.Computing:
        """How a device computes, as far as memory goes."""
        return sizing.computing(self.config, self.model.dtype, self.mesh)

    @property
    def row(self) -> flops.Lengths:
        """Lengths of one row."""
        return flops.lengths(self.objective.spec(1))

    @property
    def device(self) -> jax.Device:
        """One of the devices of this host; they are all of a kind."""
        return mesh_lib.device(self.mesh)

    def hardware(self) -> dict[str, Any]:
        """What the steps run on and compute in, for a checkpoint to remember."""
        return {
            "device": self.device.device_kind,
            "num_devices": self.mesh.devices.size,
            "dtype": self.model.dtype.name,
        }

    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of one micro-batch."""
        spec = self.objective.spec(self.micro_rows)
        return {k: jax.ShapeDtypeStruct(*field) for k, field in spec.items()}

    def context(self) -> contextlib.AbstractContextManager[None]:
        """As `parallel.mesh.context`."""
        return mesh_lib.context(self.mesh, self.config.mesh)

    def init(self) -> TrainState:
        """A fresh state on the devices."""
        return state_lib.init(
            self.model,
            self.optimizer,
            self.batch_spec(),
            self.shardings,
            self.config.train.seed,
            counted(self.config),
        )

    def init_around(self, params: Any) -> TrainState:
        """A fresh state around given parameters, which lie where `shardings` wants them."""
        return state_lib.init_around(self.optimizer, params, self.shardings, counted(self.config))

    def host_rows(self, micro_rows: int, num_micro: int) -> np.ndarray:
        """Which rows of `num_micro` micro-batches this host holds."""
        return rules_lib.host_rows(self.batch_sharding, micro_rows, num_micro)

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This host's rows -> the global device batch."""
        return rules_lib.place(batch, self.batch_sharding)


def counted(config: Config) -> state_lib.Counted:
    """What the counters of a run's state are made for."""
    return state_lib.Counted(len(config.data.paths), config.train.skip_spikes)


def make_ids(config: Config, tokenizer: AnyTokenizer) -> Ids:
    """The ids of a resolved config's run.

    Raises:
      UserError: the embedding has fewer rows than there are ids, or an encoder-decoder's tokenizer
        names nothing for its decoder to begin with.
    """
    num_rows = config.model.vocab_size
    ids = tokenizer.ids(num_rows)
    sentinels = objectives.num_sentinels(config) if ids.num_sentinels is None else 0
    if tokenizer.vocab_size + sentinels > num_rows:
        more = f" and the objective needs {sentinels} sentinels" * (sentinels > 0)
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids{more}, the embedding {num_rows} rows "
            "(config.model.vocab_size); leave model.vocab_size out or enlarge it"
        )
    if objectives.needs_pieces(config):
        ids = dataclasses.replace(ids, pieces=pieces_lib.make(tokenizer, num_rows))
    start = decoder_start_id(config, tokenizer)
    return ids if start is None else dataclasses.replace(ids, decoder_start=start)


def decoder_start_id(config: Config, tokenizer: AnyTokenizer) -> int | None:
    """What an encoder-decoder's decoder reads first; None for other models.

    Raises:
      UserError: the tokenizer has no such id.
    """
    if config.model.architecture != "encoder_decoder":
        return None
    name = families.decoder_start(config.family)
    candidates = (tokenizer.decoder_start_id, getattr(tokenizer, f"{name}_id"))
    found = next((token for token in candidates if token is not None), None)
    if found is None:
        raise UserError(
            f"the tokenizer of this encoder-decoder names neither decoder_start nor {name}, with "
            f"which its decoder starts; add one to 'special' in its {tokenizer_lib.CONFIG_FILE}"
        )
    return found


def make_model(config: Config, dtype: Any, device: jax.Device, how: How = PLAINLY) -> Model:
    """The model of a resolved config, computing in `dtype` on devices of this kind.

    `how` is for training; the default does everything, caches of decoding included.
    """
    unroll = config.train.unroll_layers
    if unroll == "auto":
        # Scanned layers cost a GPU about 15 %, a CPU nothing but compile time; and unrolled, XLA
        # merges what remat recomputes with the original.
        unroll = (
            device.platform == "gpu"
            and config.train.remat == "none"
            and config.model.num_layers <= _UNROLL_UP_TO
        )
    return Model(
        config.model,
        config.model.vocab_size,
        dtype=dtype,
        remat=config.train.remat,
        unroll=config.model.num_layers if unroll else 1,
        how=how,
    )


def _rows_hold_one_text(config: Config, objective: Objective) -> bool:
    """Whether no row has several segments, as far as the config says."""
    data = config.data
    if objectives.is_labelled(config) or data.packing == "document":
        return True
    cross = data.cross_documents
    return data.packing == "stream" and (objective.joins_documents if cross is None else cross)


def make_program(
    config: Config, devices: list[jax.Device] | None = None, ids: Ids | None = None
) -> Program:
    """Composes objective, model, optimizer and mesh of a resolved config.

    Args:
      config: from `resolve`.
      devices: None: all.
      ids: from `make_ids`; None where there is no data: as many as the tokenizer is asked for.

    Raises:
      UserError: the batch does not divide over the devices, or the objective is impossible.
    """
    if ids is None:
        ids = Ids(num_ids=config.tokenizer.vocab_size, num_rows=config.model.vocab_size)
    mesh = mesh_lib.make_mesh(config.mesh, devices)
    sharding = rules_lib.batch_sharding(mesh)
    device = mesh_lib.device(mesh)
    dtype, reason = device_lib.compute_dtype(config.train.dtype, device)
    objective = objectives.make(config, ids)
    kernel = sizing.attention_kernel(config, dtype, device)
    model = make_model(config, dtype, device, How(kernel, _rows_hold_one_text(config, objective)))
    schedule = make_schedule(config.schedule, config.optimizer.learning_rate)
    row = flops.lengths(objective.spec(1))
    micro_rows = sizing.rows_of_micro_batch(config, row, dtype, mesh)
    spec = {k: jax.ShapeDtypeStruct(*v) for k, v in objective.spec(micro_rows).items()}
    plain = model.clone(how=PLAINLY)  # of the same shapes; kernels ask what devices are here
    axes = axis_names(state_lib.named_params(plain, spec))
    optimizer = make_optimizer(config.optimizer, schedule, axes)
    abstract, shardings = state_lib.abstract_state(plain, optimizer, spec, mesh, counted(config))
    return Program(
        config,
        objective,
        objectives.make(config, ids, evaluation=True),
        model,
        schedule,
        optimizer,
        mesh,
        sharding,
        micro_rows,
        sizing.chunk_of_loss(config, row, dtype, micro_rows, mesh),
        abstract,
        shardings,
        axes,
        reason,
    )


@dataclass(frozen=True)
class Steps:
    """The compiled training and evaluation steps, and how host rows get to them."""

    program: Program
    train_step: TrainStep
    eval_step: Callable

    def micro_batches(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, jax.Array]]:
        """This host's rows of a global batch -> placed micro-batches."""
        fields = device_fields(batch)
        per_host = len(fields["inputs"]) // self.program.num_micro
        return [
            self.program.place(rows(fields, i * per_host, (i + 1) * per_host))
            for i in range(self.program.num_micro)
        ]

    def __call__(
        self,
        state: TrainState,
        batch: Mapping[str, np.ndarray],
        fresh: bool,
        on_micro: Callable[[int, dict], None] = lambda index, sums: None,
    ) -> tuple[TrainState, dict[str, Any]]:
        """One training step on this host's rows of the global batch."""
        return self.train_step(state, self.micro_batches(batch), fresh, on_micro)

    def explain(self, state: TrainState, batch: Mapping[str, np.ndarray]) -> Explained:
        """What the step on this batch does, on the host; one host alone has all rows of it."""
        found = jax.device_get(self.train_step.explain(state, self.micro_batches(batch)))
        return found._replace(nats=np.concatenate(found.nats))


def make_steps(
    program: Program, tables: Mapping[str, np.ndarray], judge: guard.Judge = guard.judge
) -> Steps:
    """Steps of `program` that report against `tables`; `judge` says which updates are made."""
    train = program.config.train
    sums = partial(
        loss.sums,
        program.model,
        num_sources=program.num_sources,
        z_loss=train.z_loss,
        chunk=program.loss_chunk,
        num_shards=program.split.rows,
    )
    train_step = TrainStep(
        sums,
        program.optimizer,
        program.schedule,
        dict(tables),
        program.shardings,
        program.batch_sharding,
        seed=train.seed,
        prng=train.prng,
        num_sources=program.num_sources,
        axes=program.axes,
        judge=judge,
        xla_options=xla_options.of(program.config, program.device, program.mesh.size),
    )
    eval_step = make_eval_step(sums, dict(tables), program.shardings.params, program.batch_sharding)
    return Steps(program, train_step, eval_step)
