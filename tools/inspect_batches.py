"""Shows the batches of a run, as text or as arrays.

python tools/inspect_batches.py --config=configs/gpt2_tiny.py --steps=0:2
python tools/inspect_batches.py --workdir=runs/gpt2_tiny --steps=120:121 --output=batches.npz
"""

from absl import flags

from lmjax import cli

_CONFIG = flags.DEFINE_string("config", None, "Config file; its fields: --config.a.b=VALUE.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run, instead of --config.")
_STEPS = flags.DEFINE_string("steps", "0:1", "Steps A:B (B left out), counted from 0.")
_ROWS = flags.DEFINE_integer("rows", 4, "Rows shown of each batch.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "Write all rows as arrays to this .npz file instead.")


def main(overrides: cli.Overrides) -> int:
    from lmjax import runner

    request = runner.Request(_CONFIG.value, _WORKDIR.value, overrides)
    return runner.inspect(request, cli.step_range(_STEPS.value), _ROWS.value, _OUTPUT.value)


if __name__ == "__main__":
    cli.run_with_overrides(main)
