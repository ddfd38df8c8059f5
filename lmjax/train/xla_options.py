"""Options that XLA compiles the training step with on each kind of device: the one place of them.

They go with the step alone, so that nothing else of a process is compiled otherwise. What is set in
`XLA_FLAGS` stays as the user set it, and `train.xla_options` is heard last. Why the others have
none: on CPUs, of the options that there are for mathematics, schedules and libraries, none made a
step faster by more than its noise; libtpu overlaps collectives with computation by itself.
"""

from __future__ import annotations

import contextlib
import os

import jax

from lmjax.config import Config
from lmjax.errors import UserError

Value = bool | int | float | str

_SEVERAL_DEVICES: dict[str, dict[str, Value]] = {
    # Collectives beside computation. One device has none to hide.
    "gpu": {"xla_gpu_enable_latency_hiding_scheduler": True},
}


def of(config: Config, device: jax.Device, num_devices: int) -> dict[str, Value]:
    """Names and values for steps on so many devices of a kind.

    Raises:
      UserError: XLA has no such option as the config names, or not such a value of it.
    """
    ours = _SEVERAL_DEVICES.get(device.platform, {}) if num_devices > 1 else {}
    own = {name: _value(text) for name, text in config.train.xla_options}
    if own:
        _check(own)
    by_user = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in ours.items() if name not in by_user} | own


def _value(text: str) -> Value:
    """Of the type that XLA wants: it takes a bool or a number for what it is."""
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _check(options: dict[str, Value]) -> None:
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise UserError(
            f"config.train.xla_options: {reason}; take it out, or write it as this release of XLA "
            "has it"
        ) from error
