"""Measures lmjax on the machine at hand.

python tools/bench.py --what=input --config=configs/gpt2_tiny.py [--output=FILE.json]
"""

import json

from absl import flags

from lmjax import cli, paths

_WHAT = flags.DEFINE_enum("what", "input", ["input"], "What to measure.")
_CONFIG = flags.DEFINE_string("config", None, "Config file; its fields: --config.a.b=VALUE.")
_OUTPUT = flags.DEFINE_string("output", None, "Also write the figures to this JSON file.")


def main(overrides: cli.Overrides) -> int:
    from rich.table import Table

    from lmjax import runner
    from lmjax.bench import input as input_bench
    from lmjax.train.console import count, make_console

    request = runner.Request(_CONFIG.value, None, overrides)
    config, batches, _ = runner.train_batches(request)
    rates = input_bench.measure(batches, config.objective.name)
    table = Table("stage", "tokens/s per core", title=f"{_WHAT.value}: {_CONFIG.value}")
    table.add_row("read windows", count(rates.read))
    table.add_row(f"objective {rates.objective}", count(rates.corrupt))
    table.add_row("whole batches", count(rates.batch), style="bold")
    table.add_row("to reach", count(rates.target))
    make_console().print(table)
    if _OUTPUT.value:
        content = json.dumps(rates.as_dict(), indent=2) + "\n"
        paths.write_bytes(_OUTPUT.value, content.encode())
    return 0


if __name__ == "__main__":
    cli.run_with_overrides(main)
