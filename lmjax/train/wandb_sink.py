"""Weights & Biases, where `log.wandb` asks for it; its package is imported then alone.

A run of ours is one run there, whatever it was stopped and resumed: its id is in `wandb.json` in
the workdir. Rows that a resume makes again are the same numbers, and W&B keeps the first. Nothing
that fails there ends a training: it is told once, and W&B gets no more. Who is asking is known to
the package alone (`wandb login`, WANDB_API_KEY); neither console nor code are sent.
"""

from __future__ import annotations

import importlib.util
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from lmjax import fields as fields_lib
from lmjax.config import Config
from lmjax.data import files
from lmjax.errors import UserError
from lmjax.foreign import first_line
from lmjax.train.console import logger
from lmjax.train.samples import Sample

ID_FILE = "wandb.json"
_INIT_SECONDS, _FINISH_SECONDS = 60.0, 60.0
_COLUMNS = ("step", "index", "prompt", "text", "reference", "filled")


def require(config: Config) -> None:
    """Raises UserError where a run asks for W&B and the package is not installed."""
    if config.log.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"config.log.wandb={config.log.wandb!r} needs the package wandb, which is not "
            "installed; pip install 'lmjax[wandb]', or leave it out"
        )


class WandB:
    """A sink that hands all to the package wandb, whose own threads and process send it."""

    def __init__(self, config: Config, folder: epath.PathLike, name: str):
        """Begins the run, or goes on with it; a `config` whose `log.wandb` is set.

        Args:
          folder: workdir, a local one.
          name: what the run is called there.
        """
        self._folder = epath.Path(folder)
        self._run: Any = None
        self._trying("cannot begin a run", lambda: self._begin(config, name))

    def scalars(self, step: int, split: str, row: Mapping[str, float]) -> None:
        self._log(step, lambda: {f"{split}/{name}": value for name, value in row.items()})

    def texts(self, step: int, samples: Sequence[Sample]) -> None:
        def table() -> dict[str, Any]:
            rows = [{"step": step, **sample.fields} for sample in samples]
            data = [[row.get(name) for name in _COLUMNS] for row in rows]
            return {"samples": self._wandb.Table(columns=list(_COLUMNS), data=data)}

        self._log(step, table)

    def flush(self) -> None:
        """Nothing: whatever it got is on its way."""

    def close(self) -> None:
        if self._run is not None:
            self._trying("cannot end the run", self._run.finish)
            self._run = None
            self._take_links_away()

    def _begin(self, config: Config, name: str) -> None:
        import wandb

        self._wandb = wandb
        mode = wandb.setup().settings.mode
        if mode == "online" and not wandb.login(prompt=False):  # else it might ask, and wait
            raise RuntimeError("not logged in (`wandb login`, WANDB_API_KEY or WANDB_MODE=offline)")
        *entity, project = config.log.wandb.split("/")
        self._run = wandb.init(
            entity=entity[0] if entity else None,
            project=project,
            name=name,
            id=_run_id(self._folder),
            resume="allow",
            dir=str(self._folder),
            config=fields_lib.to_dict(config),
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                symlink=False,
                init_timeout=_INIT_SECONDS,
                finish_timeout=_FINISH_SECONDS,
            ),
        )
        self._take_links_away()
        where = self._run.url if mode == "online" else f"{mode}, in {self._run.dir}"
        logger.info(f"Weights & Biases: {where}")

    def _take_links_away(self) -> None:
        """Its log is linked to from here, and a workdir with links that lead out is refused."""
        for entry in (self._folder / "wandb").glob("*/logs/*"):
            if os.path.islink(entry):
                os.unlink(entry)

    def _log(self, step: int, values: Callable[[], dict[str, Any]]) -> None:
        if self._run is not None:
            self._trying(f"cannot log step {step}", lambda: self._run.log(values(), step=step))

    def _trying(self, what: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # whatever it is, it is none of training's
            why = first_line(error) or type(error).__name__
            logger.warning(f"Weights & Biases {what}: {why}; training goes on without it")
            self._run = None


def _run_id(folder: epath.Path) -> str:
    """The one in the workdir, or a new one that is put there."""
    file = folder / ID_FILE
    if not file.exists():
        files.write_whole(file, json.dumps({"id": uuid.uuid4().hex[:12]}).encode() + b"\n")
    return json.loads(file.read_text())["id"]
