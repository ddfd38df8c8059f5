"""A run opened: its workdir locked, its data, its program and compiled steps, its checkpoints."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
from etils import epath

from lmjax import config_file, foreign, objectives, paths
from lmjax.batch import Ids, Pieces
from lmjax.config import Config
from lmjax.data import cache
from lmjax.errors import UserError
from lmjax.parallel import hosts
from lmjax.train import answers as answers_lib
from lmjax.train import data as data_lib
from lmjax.train import disk, setup, workdir
from lmjax.train import meta as meta_lib
from lmjax.train import start as start_lib
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.console import Console, logger
from lmjax.train.copied_checkpoints import CopiedCheckpoints, open_checkpoints
from lmjax.train.loop import StoppedError
from lmjax.train.restart import Restart, newest_before
from lmjax.train.state import TrainState
from lmjax.train.workdir import RunConfig, Workdir


@dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    config_file: str | None
    workdir: str | None
    overrides: dict[str, Any] = field(default_factory=dict)
    debug: bool = False

    def require_workdir(self) -> None:
        """Raises UserError where no workdir was given."""
        if self.workdir is None:
            raise UserError(
                "--workdir is missing; give --workdir=DIR, the run's folder of checkpoints, "
                "metrics and log"
            )


def run_config(request: Request) -> RunConfig:
    """The run of the workdir with what may change changed, or else that of the config file."""
    path = request.config_file
    source = None if path is None else config_file.source(path)
    stored = workdir.read(request.workdir) if request.workdir else None
    if stored is not None:
        return workdir.resume(stored, source, request.overrides)
    if source is not None:
        raw = config_file.load(source["file"])
        if "family" not in raw and "family" not in request.overrides:
            raw = start_lib.with_model(raw, request.overrides)
    elif init_from := request.overrides.get("train.init_from"):
        raw = start_lib.recipe_of(init_from)
    else:
        raise UserError(
            "nothing to run: give --config=FILE for a new run (see configs/), "
            "or the --workdir of one that was started"
        )
    return RunConfig(start_lib.inherit(config_file.make(raw, request.overrides)), source)


@contextlib.contextmanager
def opened(request: Request) -> Iterator[tuple[Console, Workdir, RunConfig]]:
    """The workdir, locked and logged to, and what it runs; errors go into its log too."""
    request.require_workdir()
    run = run_config(request)  # a mistake in the config leaves no folder behind
    _check_hosts(run.config)
    hosts.wait("all have read the config")  # which the first is about to write
    jax.config.update("jax_debug_nans", request.debug)
    console, folder = Console(hosts.index()), Workdir(request.workdir, hosts.index())
    try:
        console.log_to(folder.log)
        yield console, folder, run
    except StoppedError:
        raise
    except UserError as error:
        console.log_only(str(error))
        raise
    except Exception as error:
        console.log_only("".join(traceback.format_exception(error)))
        foreign.logged_in(error, paths.join(folder.name, folder.log.name))
        raise
    finally:
        console.close()
        folder.close()


@dataclass(frozen=True)
class Run:
    """Everything a run holds while it goes on."""

    folder: Workdir
    program: setup.Program
    pieces: Pieces | None
    data: data_lib.Data
    steps: setup.Steps
    answering: answers_lib.Answering | None
    restart: Restart

    @property
    def checkpoints(self) -> Checkpoints | CopiedCheckpoints:
        return self.restart.checkpoints

    @property
    def config(self) -> Config:
        return self.program.config


@dataclass(frozen=True)
class _Made:
    """What a config and its data come to; nothing is written for it but what is cached of data."""

    stores: data_lib.Stores
    ids: Ids
    program: setup.Program
    data: data_lib.Data
    replaces_tokenizer: bool  # that of the workdir, of which only the ids were known


def _made(config: Config, of_run: epath.PathLike) -> _Made:
    imported = start_lib.ids_tokenizer(config.train.init_from or of_run)
    start_lib.check_data(config, imported)
    stores = data_lib.open_stores(start_lib.with_own_tokenizer(config, of_run))
    start_lib.check_tokenizer(config, imported, stores.tokenizer)
    config = resolved(config, stores)
    ids = setup.make_ids(config, stores.tokenizer)
    program = setup.make_program(config, ids=ids)
    data = data_lib.open_data(config, stores, program.objective, program.eval_objective)
    return _Made(stores, ids, program, data, imported is not None)


@dataclass(frozen=True)
class Reading:
    """A run that is only looked at, and may be going on."""

    path: str
    source: RunConfig
    program: setup.Program
    ids: Ids
    data: data_lib.Data
    steps: setup.Steps

    @property
    def config(self) -> Config:
        return self.program.config

    @property
    def checkpoints(self) -> str:
        """Folder or URL of its checkpoints."""
        return paths.join(self.path, "checkpoints")

    def state_before(self, step: int) -> tuple[TrainState, int, dict[str, Any]]:
        """The newest state before a step, its own step, and what its checkpoint says of itself.

        Where no checkpoint is left it is the state that the run began with.

        Raises:
          UserError: that is not to be had, or the data are not what the run was trained on.
        """
        found = newest_before(self.checkpoints, step, self.program)
        if found is None:
            if "model_type" in (self.source.source or {}):
                raise UserError(
                    f"{self.checkpoints} holds no checkpoint before step {step}, and this run "
                    "began with imported weights; import them again (tools/import_hf.py) and bring "
                    "back checkpoints/0, or take a later step"
                )
            meta = meta_lib.newest(self.path)  # of a later one
            _check_data(meta, self.data, self.path)
            return first_state(self, logger.info), 0, meta
        state, meta = found
        _check_data(meta, self.data, self.path)
        return state, int(meta["step"]), meta


def reading(request: Request) -> Reading:
    """A run's program, data and compiled steps, without lock and log: its workdir is not touched.

    Raises:
      UserError: there is no run, or its data are not there.
    """
    request.require_workdir()
    path, _ = workdir.existing(request.workdir)
    source = run_config(request)
    jax.config.update("jax_debug_nans", request.debug)
    made = _made(source.config, path)
    steps = setup.make_steps(made.program, made.data.tables)
    return Reading(path, source, made.program, made.ids, made.data, steps)


@contextlib.contextmanager
def prepared(folder: Workdir, run: RunConfig, *, room_for_saves: bool = True) -> Iterator[Run]:
    """Data, program and compiled steps of a run, with the config resolved and written down.

    Args:
      folder, run: from `opened`.
      room_for_saves: whether there must be room on the disk for the checkpoints to come.
    """
    made = _made(run.config, folder.of_run)
    config, program, data = made.program.config, made.program, made.data
    keep = config.checkpoint
    checkpoints = open_checkpoints(folder.checkpoints, keep=keep.keep, keep_period=keep.keep_period)
    try:
        restart = Restart(checkpoints)
        _check_data(restart.meta(), data, folder.name)
        if room_for_saves:
            _check_room(folder, program, len(checkpoints.steps()))
        if hosts.index() == 0:
            folder.write(RunConfig(config, run.source, run.changes))
            tokenizer = made.stores.train[0].tokenizer_path
            folder.keep_tokenizer(tokenizer, replace=made.replaces_tokenizer)
        folder.sync()
        with program.context():
            steps = setup.make_steps(program, data.tables)
            answering = answers_lib.make(program, made.stores.tokenizer)
            yield Run(folder, program, made.ids.pieces, data, steps, answering, restart)
    finally:
        checkpoints.close()


def resolved(config: Config, stores: data_lib.Stores) -> Config:
    """The config with what only its data says: how many ids there are, and which classes."""
    size = stores.tokenizer.config["requested_vocab_size"]
    return setup.resolve(config, size, stores.labels(config))


def _check_hosts(config: Config) -> None:
    """Refuses raw text on several hosts: each would tokenise it, and train a tokenizer, itself."""
    if hosts.number() == 1:
        return
    if objectives.is_labelled(config):
        raise UserError(
            f"config.objective.name={config.objective.name!r} is for one host, whose answers are "
            f"judged, and this run has {hosts.number()}; start one process"
        )
    for path in config.data.paths:
        if not cache.is_prepared(path):
            raise UserError(
                f"{path} is raw text, and this run has {hosts.number()} hosts; prepare it "
                "once with tools/prepare_data.py and give all of them that store"
            )


def _check_data(meta: Mapping[str, Any], data: data_lib.Data, workdir_name: str) -> None:
    """Refuses data that a checkpoint that says this of itself was not trained on."""
    for name, value in data.identity().items():
        if meta.get(name, value) != value:  # an import has seen no data
            raise UserError(
                f"{name} of the data is {value[:12]}, the run in {workdir_name} was trained on "
                f"{meta[name][:12]}: data or tokenizer have changed; put back what they were, or "
                "give another --workdir"
            )


def _check_room(folder: Workdir, program: setup.Program, num_there: int) -> None:
    """Refuses to begin a run whose checkpoints will not fit; a new one is written before an old
    one goes."""
    keep = program.config.checkpoint.keep
    more = max(1, keep + 1 - num_there)
    needed = more * disk.num_bytes(program.abstract)
    disk.require(folder.checkpoints, needed, f"{more} more checkpoints of this run")


def first_state(run: Run | Reading, say: Callable[[str], None]) -> TrainState:
    """The state at step 0."""
    train = run.config.train
    if train.init_from is None or not train.init_weights:
        return run.program.init()
    state, said = start_lib.from_run(run.program)
    say(said)
    return state
