"""Checkpoints: one Orbax composite per step, saved behind the training.

    checkpoints/STEP/state   the arrays of `TrainState`
    checkpoints/STEP/meta    JSON: step, seed, hardware, data and tokenizer identity, versions, and
                             the fingerprint of every array, taken on the device that held it
    checkpoints/STEP.sha256  of every file, once the save has landed

Orbax writes into a temporary directory and renames it when it is whole, so a directory whose name
is a number is a finished save; on GCS, which cannot rename, it is one that holds Orbax's commit
marker. A save that fails in the background is raised at the next call;
nothing believes in a step before its save has landed.

A step is sound when its files are what was saved and its arrays have their fingerprints. A run was
killed before it could write the sums: then the fingerprints alone decide.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from absl import logging as absl_logging
from etils import epath

from lmjax import faults, paths
from lmjax.data import allocator
from lmjax.errors import UserError
from lmjax.parallel import hosts
from lmjax.train import fingerprint, stored, sums
from lmjax.train import meta as meta_lib
from lmjax.train.state import TrainState


class DamagedError(UserError):
    """A checkpoint is not what was saved."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep: int | None = None,
        keep_period: int | None = None,
        name: str | None = None,
        read_only: bool = False,
    ):
        """Opens a folder of checkpoints.

        Args:
          directory: local or on GCS.
          keep: how many of the newest to keep; None: all.
          keep_period: steps that it divides are kept for ever.
          name: what messages call the folder, if not by its path.
          read_only: nothing is made, deleted or tidied up, since a run may be writing there; what
            it saves from now on is not seen.
        """
        directory = epath.Path(directory)
        # Orbax takes no relative path; and a URL is not to be resolved.
        self._directory = directory if paths.is_remote(directory) else directory.resolve()
        self.name = name or os.fspath(self._directory)
        self._keep, self._keep_period, self._read_only = keep, keep_period, read_only
        self._verified: dict[int, str | None] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._landing: Future | None = None
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        read_only = self._read_only
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            keep_period=self._keep_period,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=True,
            read_only=read_only,
            create=not read_only,
            save_interval_steps=0 if read_only else 1,
        )
        with paths.errors(self._directory), _quiet() if read_only else contextlib.nullcontext():
            return ocp.CheckpointManager(
                self._directory, options=options, item_names=("state", "meta")
            )

    def steps(self) -> list[int]:
        """The steps that are wholly on disk, ascending; waits for the one on its way there."""
        self.wait()
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The newest step that is wholly on disk."""
        return max(self.steps(), default=None)

    def problem(self, step: int) -> str | None:
        """What is wrong with the files of a step, by their SHA-256; None: nothing is known.

        They are read once, however often this is asked; waits for the step on its way there.
        """
        self.wait()
        if step not in self._verified:
            self._verified[step] = sums.problem(os.fspath(self._directory), step)
        return self._verified[step]

    def put_aside(self, step: int) -> str:
        """Renames a step, so that it is none any more; returns the new name."""
        new = f"damaged_{step}_{hosts.agreed(time.time_ns())}"
        if hosts.index() == 0:
            for old, now in ((str(step), new), (sums.name(step), sums.name(new))):
                paths.move(os.fspath(self._directory / old), os.fspath(self._directory / now))
        hosts.wait(f"{new} is put aside")
        self._manager.reload()
        return new

    def seal(self, step: int) -> None:
        """Writes the sums of a sound step that has none."""
        if hosts.index() == 0 and not sums.exists(os.fspath(self._directory), step):
            sums.write(os.fspath(self._directory), step)

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        """Copies the state off the device, then writes it while training goes on.

        Raises:
          Exception: this save, or the one before, could not be written.
        """
        self.wait()
        meta = meta_lib.described(step, _prng(), {**meta, "fingerprint": fingerprint.of(state)})
        chunked = jax.tree.map(_chunks, state)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state, save_args=chunked), meta=ocp.args.JsonSave(meta)
        )
        allocator.saving(True)
        try:
            if step not in self._manager.all_steps():  # else its sums could not be written
                with paths.errors(self._directory):
                    self._manager.save(step, args=args)
        except BaseException:
            allocator.saving(False)
            raise
        self._landing = self._thread.submit(self._land, step)

    def _land(self, step: int) -> None:
        """Waits until a save is in its place, then adds its sums."""
        try:
            with paths.errors(self._directory):
                faults.at("saving", step)
                self._manager.wait_until_finished()
        except BaseException:
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = self._open()  # which takes the leftovers away
            raise
        finally:
            allocator.saving(False)
        faults.at("landed", step)
        if hosts.index() == 0:
            sums.write(os.fspath(self._directory), step)
            sums.remove_others(os.fspath(self._directory), self._manager.all_steps())
        self._verified[step] = None
        faults.at("saved", step)

    def landed(self) -> bool:
        """Whether nothing is on its way to the disk."""
        return self._landing is None or self._landing.done()

    def failed(self) -> bool:
        """Whether the last save has failed; `wait` raises why."""
        landing = self._landing
        return landing is not None and landing.done() and landing.exception() is not None

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with self._reading(step):
            return dict(self._manager.restore(step, args=args)["meta"])

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """The state of `step`, laid out by `shardings` whatever the mesh that saved it.

        Fields that checkpoints of older versions lack (`_LATER`) begin at zero.

        Raises:
          DamagedError: it is not what was saved.
          UserError: it cannot be read.
        """
        target = _targets(abstract, shardings)
        with self._reading(step):
            store = self._stored(step)
            lacks = [x for x in _LATER if hasattr(target, x) and not stored.has(store, x)]
            there = _without(target, lacks) if lacks else target
            stored.check(store, stored.names(there))
            args = ocp.args.Composite(state=ocp.args.StandardRestore(there))
            state = self._manager.restore(step, args=args)["state"]
        if lacks:
            zeros = {name: _zeros(getattr(target, name)) for name in lacks}
            state = dataclasses.replace(target, **state, **zeros)
        self._check(step, state)
        return state

    def restore_params(self, step: int, abstract: Any, shardings: Any) -> Any:
        """As `restore`, of the parameters alone: the optimizer's moments are not even read."""
        target = {"params": _targets(abstract, shardings)}
        how = ocp.checkpoint_utils.construct_restore_args(target)
        args = ocp.args.PyTreeRestore(target, restore_args=how, partial_restore=True)
        # The manager knows one way to restore `state`, and it is that of the whole.
        with self._reading(step), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            stored.check(self._stored(step), stored.names({"params": abstract}))
            found = checkpointer.restore(self._directory / str(step) / "state", args)
        self._check(step, {"params": found["params"]})
        return found["params"]

    def _check(self, step: int, tree: Any) -> None:
        """Compares arrays with their fingerprints; checkpoints of weights alone have none."""
        if changed := fingerprint.changed(tree, self.meta(step).get("fingerprint", {})):
            self._damaged(step, f"{changed[0]} is not what was saved")

    def _damaged(self, step: int, why: str) -> None:
        raise DamagedError(
            f"checkpoint {self.name}/{step} is damaged: {why}; bring it back from a copy, or take "
            "another step"
        )

    def _stored(self, step: int) -> tensorstore.KvStore:
        return stored.open_state(_kvstore(self._directory / str(step) / "state"))

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        if (why := self.problem(step)) is not None:
            self._damaged(step, why)
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {_first_line(error)}"
            if not sums.exists(os.fspath(self._directory), step):
                self._damaged(step, why)
            raise UserError(
                f"checkpoint {self.name}/{step} cannot be read ({why}), though its files are "
                "what was saved; nothing was overwritten"
            ) from error

    def arrays(
        self, step: int, shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, tensorstore.TensorStore]:
        """The parameters of `step` by path ("embed/token"), read slice by slice when asked for.

        Args:
          step: which.
          shapes: of the parameters by path, as the config has them.

        Raises:
          UserError: one of them is not there, or has another shape.
        """
        store = {"driver": "ocdbt", "base": _kvstore(self._directory / str(step) / "state")}
        opened = {}
        names = {name: ".".join(["params", *name.split("/")]) for name in shapes}
        with self._reading(step):
            stored.check(self._stored(step), {names[k]: shape for k, shape in shapes.items()})
            for name, path in names.items():
                spec = {"driver": "zarr", "kvstore": {**store, "path": f"{path}/"}}
                opened[name] = tensorstore.open(spec, open=True, read=True)
            return {name: future.result() for name, future in opened.items()}

    def read_whole(self, step: int, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Reads every stored value of `step` and decodes its parameters; returns their bytes.

        Args:
          step: which.
          shapes: of the parameters by path, as the config has them.

        Raises:
          UserError: one cannot be read, is of another shape or not finite.
        """
        num_bytes = 0
        with self._reading(step):
            arrays, values = self.arrays(step, shapes), self._stored(step)
            for key in values.list().result():
                num_bytes += len(values.read(key).result().value)
            for name, array in arrays.items():
                if not np.isfinite(array.read().result()).all():
                    raise ValueError(f"parameter {name} is not finite")
        return num_bytes

    def wait(self) -> None:
        """Returns when nothing is being written any more.

        Raises:
          Exception: the last save could not be written; it is forgotten afterwards.
        """
        landing, self._landing = self._landing, None
        if landing is not None:
            landing.result()

    def close(self) -> None:
        """Finishes and frees what the manager holds."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._manager.close()


def save_weights(directory: str, params: Any, meta: dict[str, Any]) -> None:
    """Writes a checkpoint of step 0 that holds parameters and nothing else.

    Args:
      directory: local; of checkpoints.
      params: nested NumPy arrays. Memory-mapped ones are not brought into memory whole.
      meta: as of `Checkpoints.save`; `weights_only` is added.
    """
    # Without copies of what nobody changes meanwhile, and in files that are written as they fill.
    handlers = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False))
    )
    state = {"params": params}
    args = ocp.args.Composite(
        state=ocp.args.PyTreeSave(
            state,
            save_args=jax.tree.map(_chunks, state),
            ocdbt_target_data_file_size=_FILE_BYTES,
        ),
        meta=ocp.args.JsonSave(meta_lib.described(0, _prng(), {**meta, "weights_only": True})),
    )
    with _quiet():  # it warns that there is no handler for arrays on devices
        manager = ocp.CheckpointManager(
            os.path.abspath(directory),
            options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False),
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(type_handler_registry=handlers),
                "meta": ocp.JsonCheckpointHandler(),
            },
        )
        manager.save(0, args=args)
        manager.close()
    sums.write(os.path.abspath(directory), 0)


_LATER = ("peaks",)  # fields of the state that were not there from the beginning
_CHUNK_BYTES, _FILE_BYTES = 64 << 20, 256 << 20


def _chunks(leaf: Any) -> ocp.SaveArgs:
    """So that a layer of a stack is read without its neighbours: cut between layers first.

    Other arrays are cut as Orbax likes; along a long first dim it would make a chunk per index.
    """
    is_stack = leaf.ndim > 2 and leaf.shape[0] < leaf.shape[1]
    return ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES, shard_axes=(0,) if is_stack else ())


def _prng() -> str:
    return jax.config.jax_default_prng_impl


def _kvstore(directory: epath.Path) -> str:
    url = os.fspath(directory)
    return f"{url if paths.is_remote(url) else f'file://{url}'}/"


def _without(target: Any, names: Sequence[str]) -> dict[str, Any]:
    """The other fields of a state, by their names."""
    fields = (field.name for field in dataclasses.fields(target))
    return {name: getattr(target, name) for name in fields if name not in names}


def _zeros(target: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), target)


def _targets(abstract: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's warnings on what is meant to be so."""
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(before)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
