"""The command line: `python -m lmjax.main --config=FILE --workdir=DIR [--config.a.b=VALUE ...]`.

JAX is imported only once the run itself begins: Grain's worker processes import this module too,
and stay light.
"""

from __future__ import annotations

import os
import signal

from absl import flags

from lmjax import cli, exit_codes, faults
from lmjax.errors import UserError

_CONFIG = flags.DEFINE_string("config", None, "Config file; its fields: --config.a.b=VALUE.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, log.")
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "eval", "replay"],
    "Train, evaluate what is there, or make one of its steps again and write a page on it.",
)
_STEP = flags.DEFINE_integer("step", None, "Of --mode=replay: the step, counted from 1.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "Of --mode=replay: the page; WORKDIR/replay/STEP.html if not given."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what the run is and costs; touch no data.")
_TEST_FAULTS = flags.DEFINE_bool(
    "test_faults",
    False,
    f"Only for tests: do what {faults.VARIABLE} says, which ends the run badly.",
)
_ADDRESS = flags.DEFINE_string(
    "coordinator_address",
    None,
    "Of several processes: HOST:PORT of the one with process_id 0. SLURM, TPU pods and Kubernetes "
    "say it, and the next two, by themselves.",
)
_NUMBER = flags.DEFINE_integer(
    "num_processes", None, "Of several processes: how many; 1: this one alone, whoever started it."
)
_INDEX = flags.DEFINE_integer("process_id", None, "Of several processes: this one's, from 0.")
_JOIN_SECONDS = flags.DEFINE_integer(
    "join_seconds", 300, "Of several processes: how long each waits for the others.", lower_bound=1
)
_HELP_CONFIG = flags.DEFINE_bool("help_config", False, "List all config fields and leave.")


def main(overrides: cli.Overrides) -> int:
    _check_flags()
    # Until the run has begun there is nothing to lose, and importing takes seconds.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(exit_codes.PREEMPTED))
    from lmjax.data import allocator

    allocator.keep_freed()  # before there are threads
    faults.arm(allowed=_TEST_FAULTS.value)
    from lmjax import runner
    from lmjax.parallel import joining

    if _HELP_CONFIG.value:
        return runner.help_config()
    joining.join(
        _ADDRESS.value,
        _NUMBER.value,
        _INDEX.value,
        seconds=_JOIN_SECONDS.value,
        say=cli.fail,
    )
    request = runner.Request(
        config_file=_CONFIG.value,
        workdir=_WORKDIR.value,
        overrides=overrides,
        debug=cli.debug(),
    )
    if _DRY_RUN.value:
        return runner.dry_run(request)
    if _MODE.value == "replay":
        return runner.replay(request, _STEP.value, _OUTPUT.value)
    return runner.evaluate(request) if _MODE.value == "eval" else runner.train(request)


def _check_flags() -> None:
    """Refuses flags that would do nothing."""
    given = [flag for flag in (_STEP, _OUTPUT) if flag.value is not None]
    if given and _MODE.value != "replay":
        raise UserError(f"--{given[0].name} is for --mode=replay; add that or leave it out")


if __name__ == "__main__":
    cli.run_with_overrides(main)
