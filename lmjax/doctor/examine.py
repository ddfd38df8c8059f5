"""All checks in their order."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from typing import Any

from lmjax import config_file as config_file_lib
from lmjax import paths
from lmjax.config import Config
from lmjax.doctor import fit, health, machine
from lmjax.doctor.report import Section, checked
from lmjax.errors import UserError
from lmjax.train import workdir as workdir_lib


def examine(
    *,
    workdir: str | None = None,
    config_file: str | None = None,
    data: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    configs: str | None = None,
) -> list[Section]:
    """Examines the machine and whatever else is named.

    Args:
      workdir: of a run.
      config_file: whose run is planned.
      data: a store, or raw text.
      overrides: fields laid over the config file's, or over a run's.
      configs: folder of config files to try for size where there is no other config.
    """
    given = dict(overrides or {})
    sections = [
        checked("versions", machine.versions),
        checked("extras", machine.extras),
        checked("this machine", machine.host, [workdir or ".", paths.CACHE_DIR]),
    ]
    devices: list[Any] = []
    planned: list[Config] = []

    def of_devices() -> Section:
        devices.extend(machine.find_devices())
        return machine.devices(devices)

    def of_run() -> Section:
        path, run = workdir_lib.existing(workdir)
        section = health.run(path, run.config)
        planned.append(workdir_lib.resume(run, None, given).config)
        return section

    def of_config() -> Section:
        config = config_file_lib.make(config_file_lib.load(config_file), given)
        planned.append(config)
        section = Section(f"config {config_file}")
        section.add("model", f"{config.family} {config.model.preset or ''}".strip())
        section.add("objective", config.objective.name)
        return section

    sections.append(checked("devices", of_devices))
    if workdir is not None:
        sections.append(checked(f"workdir {workdir}", of_run))
    if config_file is not None:
        sections.append(checked(f"config {config_file}", of_config))
    config = planned[-1] if planned else None
    how = {} if config is None else _reading(config)
    for path in [data] if data else config.data.paths if config else ():
        sections.append(checked(f"data {path}", health.data, path, **how))
    name = config_file or workdir
    if devices and config is not None:
        sections.append(checked("what fits", fit.one, name, config, devices))
    elif devices and configs is not None and name is None:
        sections.append(checked("what fits", fit.several, _load_all(configs, given), devices))
    return sections


def _reading(config: Config) -> dict[str, str]:
    return {"text_key": config.data.text_key, "text_split": config.data.text_split}


def _load_all(folder: str, overrides: dict[str, Any]) -> dict[str, Config | UserError]:
    found: dict[str, Config | UserError] = {}
    for file in sorted(glob.glob(os.path.join(folder, "*.py"))):
        name = os.path.basename(file).removesuffix(".py")
        try:
            found[name] = config_file_lib.make(config_file_lib.load(file), overrides)
        except UserError as error:
            found[name] = error
    return found
