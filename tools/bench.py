"""Measures lmjax on the machine at hand.

python tools/bench.py --suite=gpu [--output=FOLDER]

python tools/bench.py --what=train --config=configs/bert_mini.py [--against=hf] [--output=FILE.json]
python tools/bench.py --what=input --config=configs/bert_tiny.py [--against=hf] [--output=FILE.json]
python tools/bench.py --what=startup --config=configs/bert_tiny.py [--output=FILE.json]
python tools/bench.py --what=checkpoint --config=configs/gpt2_small.py [--output=FILE.json]
python tools/bench.py --what=ablation --config=configs/bert_mini.py [--output=FILE.json]
python tools/bench.py --what=attention --config=configs/t5_mini.py [--output=FILE.json]
python tools/bench.py --what=packing --config=configs/bert_tiny.py [--output=FILE.json]
python tools/bench.py --what=checks --config=configs/bert_tiny.py [--output=FILE.json]
python tools/bench.py --what=plan --config=configs/bert_mini.py [--mfu=0.3] [--output=FILE.json]
python tools/bench.py --what=curate --input=FILES [--output=FILE.json]
"""

from absl import flags

from lmjax import cli

_WHAT = flags.DEFINE_enum(
    "what",
    "train",
    [
        "train",
        "startup",
        "checkpoint",
        "ablation",
        "attention",
        "input",
        "packing",
        "checks",
        "plan",
        "curate",
    ],
    "What to measure: training steps; from the start of the process to the first step; what a save "
    "takes of a run; what each switch of a step is worth; kernels of attention; how fast batches "
    "are made; training steps with each packing; what the checks take of a step that let a run "
    "survive faults; a plan's figures beside the run's; curation of text beside a chain of "
    "datatrove's own filters.",
)
_CONFIG = flags.DEFINE_string("config", None, "Config file; its fields: --config.a.b=VALUE.")
_SUITE = flags.DEFINE_enum(
    "suite",
    None,
    ["gpu", "cpu"],
    "Instead of --what and --config: all that is telling on such a machine; --output is a folder.",
)
_AGAINST = flags.DEFINE_enum(
    "against",
    None,
    ["hf"],
    "Beside transformers in the same run: train: its PyTorch model, eager and compiled; input: its "
    "collator.",
)
_INPUT = flags.DEFINE_string(
    "input", None, "Of --what=curate: text files, globs or folders, comma-separated."
)
_MFU = flags.DEFINE_float(
    "mfu", 0.4, "Of --what=plan: share of the machine's rate that is assumed.", 0.01, 1.0
)
_SECONDS = flags.DEFINE_float("seconds", None, "How long; input: 6, else 60.", lower_bound=0)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Also write the figures to this JSON file, and the table beside it."
)


def main(overrides: cli.Overrides) -> int:
    from lmjax import runner
    from lmjax.bench import (
        ablation,
        attention,
        checks,
        collators,
        planned,
        report,
        saving,
        startup,
        training,
    )
    from lmjax.bench import input as input_bench
    from lmjax.bench import packing as packing_bench
    from lmjax.errors import UserError
    from lmjax.train import setup
    from lmjax.train.console import make_console

    if _SUITE.value:
        return _run_suite(overrides)
    if _AGAINST.value and _WHAT.value not in ("train", "input"):
        raise UserError(f"--against has no meaning for --what={_WHAT.value}; leave it out")
    if (_WHAT.value == "curate") != (_INPUT.value is not None):
        raise UserError("--input and --what=curate go together; give both or none")
    if _WHAT.value == "curate":
        return _curate()
    request = runner.Request(_CONFIG.value, None, overrides)
    config, batches, stores = runner.train_batches(request)
    title = f"{_WHAT.value}: {_CONFIG.value}"
    if _WHAT.value == "train":
        config = training.comparable(config) if _AGAINST.value else config
        peers = tuple(training.PEERS) if _AGAINST.value else ()
        found = training.measure(config, stores, _SECONDS.value or 60.0, peers)
        table, figures = report.training_table(found, title), found.as_dict()
    elif _WHAT.value == "startup":
        found = startup.measure(_CONFIG.value, overrides, _SECONDS.value or 60.0)
        table, figures = report.startup_table(found, title), found.as_dict()
    elif _WHAT.value == "checkpoint":
        found = saving.measure(config, stores, _SECONDS.value or 60.0)
        table, figures = report.saving_table(found, title), found.as_dict()
    elif _WHAT.value == "ablation":
        rows = ablation.measure(config, stores, _SECONDS.value or 120.0)
        table = report.ablation_table(rows, title)
        figures = {"rows": {name: row.as_dict() for name, row in rows.items()}}
    elif _WHAT.value == "attention":
        found = attention.measure(config, stores, _SECONDS.value or 60.0)
        table = report.attention_table(found, title)
        figures = {"layers": {name: each.as_dict() for name, each in found.items()}}
    elif _WHAT.value == "packing":
        rates = packing_bench.measure(config, stores, _SECONDS.value or 60.0)
        table = report.packing_table(rates, title)
        figures = {"packings": {name: found.as_dict() for name, found in rates.items()}}
    elif _WHAT.value == "checks":
        found = checks.measure(config, stores, _SECONDS.value or 60.0)
        table, figures = report.checks_table(found, title), found.as_dict()
    elif _WHAT.value == "plan":
        found = planned.measure(config, stores, _SECONDS.value or 30.0, _MFU.value)
        table, figures = report.planned_table(found, title), found.as_dict()
    else:
        peer = None
        if _AGAINST.value:
            ids = setup.make_ids(config, stores.tokenizer)
            tokens, _ = input_bench.sample(batches)
            peer = collators.fastest(config.objective, ids, tokens)
        rates = input_bench.measure(batches, config.objective.name, _SECONDS.value or 6.0, peer)
        table = report.input_table(rates, config, title)
        figures = rates.as_dict()
    make_console().print(table)
    if _OUTPUT.value:
        report.write(_OUTPUT.value, _WHAT.value, config, figures, table)
    return 0


def _curate() -> int:
    from lmjax.bench import curation, report
    from lmjax.data import files
    from lmjax.train.console import make_console

    found = curation.measure(files.find_files(_INPUT.value), _SECONDS.value or 60.0)
    table = report.curation_table(found, f"curate: {_INPUT.value}")
    make_console().print(table)
    if _OUTPUT.value:
        report.write(_OUTPUT.value, _WHAT.value, None, found.as_dict(), table)
    return 0


def _run_suite(overrides: cli.Overrides) -> int:
    from lmjax.bench import suite

    arguments = [f"--config.{name}={value}" for name, value in overrides.items()]
    folder = _OUTPUT.value or f"bench_{_SUITE.value}"
    left_out = suite.run(_SUITE.value, folder, arguments, lambda line: print(line, flush=True))
    for line in left_out:
        print(f"left out: {line}")
    print(f"figures: {folder}")
    return 0


if __name__ == "__main__":
    cli.run_with_overrides(main)
