"""Says what this machine is, what fits on it, what is wrong, and what to do about it.

python tools/doctor.py
python tools/doctor.py --config=configs/gpt2_small.py
python tools/doctor.py --workdir=runs/gpt2_tiny --data=my_store

Versions, extras, memory, disk, devices and their rate; the health of a run, its checkpoints and its
data; which configs fit. At the end stands a block for a bug report, without names of home folders
or secrets. Nothing is written. The exit code is 1 where a problem was found.
"""

from pathlib import Path

from absl import flags

from lmjax import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder or URL of a run to examine.")
_CONFIG = flags.DEFINE_string("config", None, "Config file; its fields: --config.a.b=VALUE.")
_DATA = flags.DEFINE_string("data", None, "A prepared store, or raw text, to examine.")

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def main(overrides: cli.Overrides) -> int:
    """Examines, prints the report, and says by the exit code whether something is wrong."""
    from lmjax.doctor import report
    from lmjax.doctor.examine import examine
    from lmjax.train.console import make_console

    sections = examine(
        workdir=_WORKDIR.value,
        config_file=_CONFIG.value,
        data=_DATA.value,
        overrides=overrides,
        configs=str(CONFIGS),
    )
    report.show(sections, make_console())
    return int(any(section.problems for section in sections))


if __name__ == "__main__":
    cli.run_with_overrides(main)
