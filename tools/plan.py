"""Says before the bill what a run takes on devices that are not here: does it fit, how long, what.

python tools/plan.py --config=configs/llama3_8b.py --topology=v5p:4x4x4 [--output=FILE.json]
python tools/plan.py --config=configs/gpt2_small.py --topology=h100:8
python tools/plan.py --all

For TPUs the training step is compiled, without one (pip install 'lmjax[tpu]'): minutes for large
models. Memory and collectives are then the compiler's. For GPUs and CPUs they are estimates. What
does not fit is tried with remat, smaller micro-batches and other meshes; the first that fits is
named. Data and weights are not touched.
"""

import json
import os
import sys
from pathlib import Path

from absl import flags

from lmjax import cli

_CONFIG = flags.DEFINE_string("config", None, "Config file; its fields: --config.a.b=VALUE.")
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "v5e:4x4, v5p:4x4x4, v6e:4x4, 2xv5e:4x4 (slices), h100:8, a100:8, cpu:8."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Also write the figures to this JSON file; of --all: the page."
)
_ANALYTIC = flags.DEFINE_bool("analytic", False, "Compile nothing: estimates for TPUs, too.")
_MFU = flags.DEFINE_float(
    "mfu", 0.4, "Share of the chips' peak that the run is taken to reach.", 0.01, 1.0
)
_LEDGER = flags.DEFINE_string(
    "ledger", None, "ledger.json of a curation, for the share of raw text that is kept."
)
_BYTES_PER_TOKEN = flags.DEFINE_float("bytes_per_token", 4.0, "Of the text.", 0.5, 64.0)
_ALL = flags.DEFINE_bool(
    "all", False, "Every config of configs/ on the devices that it names; writes docs/plans.md."
)

ROOT = Path(__file__).resolve().parents[1]


def main(overrides: cli.Overrides) -> int:
    # Before JAX begins: devices that are here play no part, and what is compiled runs nowhere.
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    from lmjax import config_file, fields, paths
    from lmjax.errors import UserError
    from lmjax.plan import plan, raw_text, report, topology
    from lmjax.train.console import make_console

    asked = plan.Asked(_MFU.value, raw_text.keep_rates(_LEDGER.value), _BYTES_PER_TOKEN.value)
    load = lambda file: config_file.make(config_file.load(file), overrides)
    tell = lambda line: print(line, file=sys.stderr, flush=True)
    if _ALL.value:
        from lmjax.plan import table

        page = Path(_OUTPUT.value or ROOT / "docs" / "plans.md")
        table.write(ROOT / "configs", page, load, asked, analytic=_ANALYTIC.value, tell=tell)
        print(f"plans of all configs: {page}")
        return 0
    if not _CONFIG.value or not _TOPOLOGY.value:
        raise UserError("nothing to plan: give --config=FILE and --topology=v5e:4x4, or --all")
    where = topology.make(_TOPOLOGY.value, analytic=_ANALYTIC.value)
    made = plan.make(load(_CONFIG.value), where, asked, tell)
    found = {"config": _CONFIG.value, "fields": fields.to_dict(made.config)} | plan.as_dict(made)
    report.show(_CONFIG.value, found, make_console())
    if _OUTPUT.value:
        paths.write_bytes(_OUTPUT.value, (json.dumps(found, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    cli.run_with_overrides(main)
