"""Says before the bill what a run takes on devices that are not here: does it fit, how long, what.

python tools/plan.py --config=configs/llama3_8b.py --topology=v5p:4x4x4 [--output=FILE.json]
python tools/plan.py --config=configs/gpt2_small.py --topology=h100:8
python tools/plan.py --data=my_text --budget=24 --topology=h100:8 --task=classify --output=plan.html
python tools/plan.py --all

For TPUs the training step is compiled, without one (pip install 'lmjax[tpu]'): minutes for large
models. Memory and collectives are then the compiler's. For GPUs and CPUs they are estimates. What
does not fit is tried with remat, smaller micro-batches and other meshes; the first that fits is
named. Data and weights are not touched.

With --data it says what to train: it trains a ladder of small models on that text (some ten
minutes of two cores), fits their loss against size and tokens, and recommends variant, size and
tokens for the hours of --budget, or a published model to go on from. Stopped, it is given again.
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
    "output",
    None,
    "Also write the figures to this JSON file; of --all: the page; of --data: a page, FILE.html, "
    "and the figures beside it.",
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

_DATA = flags.DEFINE_string(
    "data", None, "Raw text, files, globs or folders, comma-separated: what to train on it?"
)
_BUDGET = flags.DEFINE_float("budget", None, "With --data: hours on the topology.")
_TASK = flags.DEFINE_string(
    "task",
    None,
    "With --data: generate, classify, embed, tag, answer (with a part of a text), summarise or "
    "translate; it decides on the variant.",
)
_VARIANTS = flags.DEFINE_list(
    "variants", None, "With --data: ladders of encoder, decoder, encoder-decoder; more take longer."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/plan", "With --data: where the ladder's runs are kept, and gone on with."
)

_OF_DATA = ("budget", "task", "variants", "workdir")
_OF_CONFIG = ("config", "all", "bytes_per_token")

ROOT = Path(__file__).resolve().parents[1]


def main(overrides: cli.Overrides) -> int:
    # Before JAX begins: devices that are here play no part, and what is compiled runs nowhere.
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    from lmjax import config_file, fields, paths
    from lmjax.errors import UserError
    from lmjax.plan import plan, raw_text, report, topology
    from lmjax.train.console import make_console

    _check_flags()
    asked = plan.Asked(_MFU.value, raw_text.keep_rates(_LEDGER.value), _BYTES_PER_TOKEN.value)
    load = lambda file: config_file.make(config_file.load(file), overrides)
    tell = lambda line: print(line, file=sys.stderr, flush=True)
    if _DATA.value:
        from lmjax.plan import decision, decision_page

        names = decision.variants_of(_TASK.value, _VARIANTS.value)
        where = topology.make(_TOPOLOGY.value, analytic=_ANALYTIC.value)
        folder, output = Path(_WORKDIR.value), _OUTPUT.value
        about = (_DATA.value, _BUDGET.value, where, asked, _TASK.value, names, folder)
        decision_page.answer(decision.Question(*about), output, make_console(), tell)
        return 0
    if _ALL.value:
        from lmjax.plan import table

        page = Path(_OUTPUT.value or ROOT / "docs" / "plans.md")
        table.write(ROOT / "configs", page, load, asked, analytic=_ANALYTIC.value, tell=tell)
        print(f"plans of all configs: {page}")
        return 0
    if not _CONFIG.value or not _TOPOLOGY.value:
        raise UserError(
            "nothing to plan: give --config=FILE and --topology=v5e:4x4, --data=TEXT with --budget "
            "and --topology, or --all"
        )
    where = topology.make(_TOPOLOGY.value, analytic=_ANALYTIC.value)
    made = plan.make(load(_CONFIG.value), where, asked, tell)
    found = {"config": _CONFIG.value, "fields": fields.to_dict(made.config)} | plan.as_dict(made)
    report.show(_CONFIG.value, found, make_console())
    if _OUTPUT.value:
        paths.write_bytes(_OUTPUT.value, (json.dumps(found, indent=1) + "\n").encode())
    return 0


def _check_flags() -> None:
    """Flags that go with --data and those that do not.

    Raises:
      UserError: one is missing, or says nothing here.
    """
    from lmjax.errors import UserError

    given = {name: flags.FLAGS[name].present for name in _OF_DATA + _OF_CONFIG}
    if _DATA.value is None:
        for name in _OF_DATA:
            if given[name]:
                raise UserError(f"--{name} is for a ladder; give --data=TEXT, too, or leave it out")
        return
    for name in _OF_CONFIG:
        if given[name]:
            raise UserError(
                f"--{name} and --data are two ways to plan; leave one out (the ladder measures its "
                "own bytes a token and writes its own config)"
            )
    if _BUDGET.value is None or _TOPOLOGY.value is None:
        raise UserError(
            "--data says what to train for a budget; give --budget=HOURS and --topology=h100:8"
        )
    if _OUTPUT.value and not _OUTPUT.value.endswith(".html"):
        raise UserError(f"--output={_OUTPUT.value} is no page; name it FILE.html")


if __name__ == "__main__":
    cli.run_with_overrides(main)
