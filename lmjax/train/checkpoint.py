"""Checkpoints: one Orbax composite per step, saved behind the training.

    checkpoints/STEP/state   the arrays of `TrainState`
    checkpoints/STEP/meta    JSON: step, seed, hardware, data and tokenizer identity, versions

Orbax writes into a temporary directory and renames it when it is whole, so a directory whose name
is a number is a finished save; on GCS, which cannot rename, it is one that holds Orbax's commit
marker. A save that fails in the background is raised at the next call;
nothing believes in a step before its save has landed.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from absl import logging as absl_logging
from etils import epath

from lmjax import paths
from lmjax.errors import UserError
from lmjax.train.state import TrainState


def versions() -> dict[str, str]:
    """Versions of what decides about numbers."""
    names = ("lmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"python": platform.python_version()}


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
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_period,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=True,
            read_only=read_only,
            create=not read_only,
            save_interval_steps=0 if read_only else 1,
        )
        with paths.errors(self._directory), _quiet() if read_only else contextlib.nullcontext():
            self._manager = ocp.CheckpointManager(
                self._directory, options=options, item_names=("state", "meta")
            )

    def steps(self) -> list[int]:
        """The steps that are wholly on disk, ascending."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The newest step that is wholly on disk."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        """Copies the state off the device, then writes it while training goes on."""
        self.wait()
        meta = _described(step, meta)
        chunked = jax.tree.map(_chunks, state)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state, save_args=chunked), meta=ocp.args.JsonSave(meta)
        )
        with paths.errors(self._directory):
            self._manager.save(step, args=args)

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with self._reading(step):
            return dict(self._manager.restore(step, args=args)["meta"])

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """The state of `step`, laid out by `shardings` whatever the mesh that saved it."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore(_targets(abstract, shardings)))
        with self._reading(step):
            return self._manager.restore(step, args=args)["state"]

    def restore_params(self, step: int, abstract: Any, shardings: Any) -> Any:
        """As `restore`, of the parameters alone: the optimizer's moments are not even read."""
        target = {"params": _targets(abstract, shardings)}
        how = ocp.checkpoint_utils.construct_restore_args(target)
        args = ocp.args.PyTreeRestore(target, restore_args=how, partial_restore=True)
        # The manager knows one way to restore `state`, and it is that of the whole.
        with self._reading(step), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(self._directory / str(step) / "state", args)["params"]

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise UserError(
                f"checkpoint {self.name}/{step} cannot be read "
                f"({type(error).__name__}: {_first_line(error)}), nothing was overwritten; "
                "move that folder away to go on from an older one"
            ) from error

    def arrays(self, step: int, names: Iterable[str]) -> dict[str, tensorstore.TensorStore]:
        """The parameters of `step` by path ("embed/token"), read slice by slice when asked for.

        Raises:
          UserError: one of them is not there.
        """
        store = {"driver": "ocdbt", "base": _kvstore(self._directory / str(step) / "state")}
        opened = {}
        with self._reading(step):
            for name in names:
                path = ".".join(["params", *name.split("/")]) + "/"
                spec = {"driver": "zarr", "kvstore": {**store, "path": path}}
                opened[name] = tensorstore.open(spec, open=True, read=True)
            return {name: future.result() for name, future in opened.items()}

    def read_whole(self, step: int) -> int:
        """Reads every stored value of `step` and decodes its parameters; returns their bytes.

        Raises:
          UserError: one cannot be read, or a parameter is not finite.
        """
        base = _kvstore(self._directory / str(step) / "state")
        num_bytes, weights = 0, set()
        with self._reading(step):
            values = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
            for key in values.list().result():
                num_bytes += len(values.read(key).result().value)
                folder, _, file = key.decode().rpartition("/")
                if folder.startswith("params.") and file == ".zarray":
                    weights.add(folder.removeprefix("params.").replace(".", "/"))
            if not weights:
                raise ValueError("there are no parameters in it")
            for name, array in self.arrays(step, sorted(weights)).items():
                if not np.isfinite(array.read().result()).all():
                    raise ValueError(f"parameter {name} is not finite")
        return num_bytes

    def wait(self) -> None:
        """Returns when nothing is being written any more."""
        with paths.errors(self._directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes and frees what the manager holds."""
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
        meta=ocp.args.JsonSave(_described(0, {**meta, "weights_only": True})),
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


_CHUNK_BYTES, _FILE_BYTES = 64 << 20, 256 << 20


def _chunks(leaf: Any) -> ocp.SaveArgs:
    """So that a layer of a stack is read without its neighbours: cut between layers first.

    Other arrays are cut as Orbax likes; along a long first dim it would make a chunk per index.
    """
    is_stack = leaf.ndim > 2 and leaf.shape[0] < leaf.shape[1]
    return ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES, shard_axes=(0,) if is_stack else ())


def _described(step: int, meta: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": 1,
        "step": step,
        "prng": jax.config.jax_default_prng_impl,
        "versions": versions(),
        **meta,
    }


def _kvstore(directory: epath.Path) -> str:
    url = os.fspath(directory)
    return f"{url if paths.is_remote(url) else f'file://{url}'}/"


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
