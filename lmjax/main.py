"""The command line: `python -m lmjax.main --config=FILE --workdir=DIR [--config.a.b=VALUE ...]`.

JAX is imported only once the run itself begins: Grain's worker processes import this module too,
and stay light.
"""

from __future__ import annotations

import os
import signal

from absl import flags

from lmjax import cli, exit_codes, faults

_CONFIG = flags.DEFINE_string("config", None, "Config file; its fields: --config.a.b=VALUE.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, log.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train, or evaluate what is there.")
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
    return runner.evaluate(request) if _MODE.value == "eval" else runner.train(request)


if __name__ == "__main__":
    cli.run_with_overrides(main)
