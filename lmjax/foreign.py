"""Exceptions that other libraries and the operating system raise, in one line of cause and fix.

Only what no better informed place has turned into a `UserError` comes here, so the lines are
general. Exceptions of JAX are known by their names: the command lines do not import it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import traceback
from importlib import metadata

_JAX = {"XlaRuntimeError", "JaxRuntimeError"}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_LOG = "lmjax_log"  # the attribute that `logged_in` sets


def explain(error: BaseException) -> str | None:
    """What an exception means and what to do about it; None where it is none of the known."""
    said = first_line(error)
    if type(error).__name__ in _JAX and "RESOURCE_EXHAUSTED" in str(error):
        return (
            f"the device has too little memory ({said}); lower config.train.micro_batch_size, set "
            "config.train.remat=full, or split the model with config.mesh.preset=fsdp; "
            "--dry_run shows what a run needs"
        )
    if not isinstance(error, OSError) and is_full_disk(error):
        file = re.search(r'"(/[^"]+)"', str(error))  # as TensorStore has it, behind a checkpoint
        return _full(f"{file[1]}: " if file else "", "No space left on device")
    if isinstance(error, MemoryError):
        return (
            f"this machine has too little memory ({said or 'no details'}); end other programs, or "
            "take a smaller model, shorter rows or a smaller config.train.micro_batch_size"
        )
    if "Unable to initialize backend" in said or _raised_in(error, "xla_bridge.py"):
        asked = os.environ.get("JAX_PLATFORMS", "")
        return (
            f"JAX cannot start its devices (JAX_PLATFORMS={asked!r}: {said or 'no such device'}); "
            "unset JAX_PLATFORMS or install the extra for this machine (cuda12, cuda13, tpu); "
            "tools/doctor.py shows what is there"
        )
    if isinstance(error, ModuleNotFoundError) and not (error.name or "lmjax").startswith("lmjax"):
        return f"the Python package {error.name} is missing; pip install {_extra_of(error.name)}"
    return _of_system(error) if isinstance(error, OSError) else None


def is_full_disk(error: BaseException) -> bool:
    """Whether a disk or a quota is what is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return "No space left on device" in str(error)


def _of_system(error: OSError) -> str | None:
    where = f"{error.filename}: " if error.filename is not None else ""
    why = error.strerror or first_line(error)
    if error.errno in _FULL:
        return _full(where, why)
    if isinstance(error, BrokenPipeError):
        return "whatever was reading the output has ended; let it read on, or write to a file"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return (
            f"{where}permission denied ({why}); choose another path, or get the right to this one"
        )
    kinds = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
    if where and isinstance(error, kinds):
        return f"{where}{why.lower()}; check the path"
    if error.errno == errno.EMFILE:
        return f"{where}too many open files ({why}); raise the limit: `ulimit -n 4096`"
    return None


def _full(where: str, why: str) -> str:
    return f"{where}the disk is full ({why}); free some space and run the same command again"


def _raised_in(error: BaseException, file: str) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and os.path.basename(frames[-1].filename) == file


def _extra_of(module: str) -> str:
    """What to give pip for a module: the extra of lmjax that brings it, or its own name."""
    root = module.split(".")[0]
    names = {root, *metadata.packages_distributions().get(root, [])}
    for requirement in _requirements():
        name, _, extra = requirement.partition("; extra == ")
        if re.split(r"[^\w.-]", name)[0] in names and extra:
            return f"'lmjax[{extra.strip(chr(34) + chr(39))}]'"
    return root


def _requirements() -> list[str]:
    try:
        return metadata.requires("lmjax") or []
    except metadata.PackageNotFoundError:
        return []


def is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an exception: imports of extensions wrap it in one of their own."""
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, shortened."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def logged_in(error: BaseException, log: str) -> None:
    """Remembers that the traceback of an exception stands in the file `log`."""
    with contextlib.suppress(AttributeError):  # some exceptions take no attributes
        setattr(error, _LOG, log)


def log_of(error: BaseException) -> str | None:
    """What `logged_in` was told."""
    return getattr(error, _LOG, None)
