"""What a run is and what it will cost, told before it starts; made from shapes, not from data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
from rich.console import Console as RichConsole
from rich.table import Column, Table

from lmjax import chips, flops, objectives
from lmjax import config as config_lib
from lmjax import fields as fields_lib
from lmjax.batch import Pieces
from lmjax.config import Config
from lmjax.data.labelled import LabelledSet
from lmjax.data.store import Store
from lmjax.optim.policy import name_of
from lmjax.parallel.rules import num_parts
from lmjax.train import device as device_lib
from lmjax.train.console import count, duration, size
from lmjax.train.data import Data
from lmjax.train.reporter import measured
from lmjax.train.setup import Program
from lmjax.train.workdir import Workdir

# What a training step reaches of a plain matrix product's rate, or of the chip's datasheet peak.
_SHARE_OF_MATMUL = 0.4
_SHARE_OF_PEAK = 0.4

_MATTERING_SHARE = 0.001  # of the embedding's rows: a script with fewer is not talked about


@dataclass(frozen=True)
class Estimate:
    """Expected time of a run on the devices at hand.

    Attributes:
      flops_per_step: model FLOPs of one step over all devices.
      seconds_per_step: at the assumed rate.
      basis: where the rate comes from, in words.
    """

    flops_per_step: float
    seconds_per_step: float
    basis: str


@dataclass(frozen=True)
class Rate:
    """FLOP/s that a training step is expected to reach over all devices, and why, in words."""

    flops: float
    basis: str


def expected_rate(
    device: jax.Device, num_devices: int, dtype: Any, measured: float | None = None
) -> Rate:
    """A share of the chip's peak or, where that is not known, of a matrix product's rate.

    Args:
      device: one of them; they are all of a kind.
      num_devices: that the step runs on.
      dtype: what it computes in.
      measured: from `device.matmul_flops`; None: measured now, where it is needed.
    """
    peak = chips.peak_flops(device.device_kind)
    if peak is not None:
        basis = f"{_SHARE_OF_PEAK:.0%} of {count(peak)}FLOP/s, the datasheet peak"
        return Rate(peak * _SHARE_OF_PEAK * num_devices, basis)
    # Virtual CPU devices share the cores, so the measured rate is that of all together.
    measured = measured or device_lib.matmul_flops(device, dtype)
    num_devices = 1 if device.platform == "cpu" else num_devices
    basis = f"{_SHARE_OF_MATMUL:.0%} of {count(measured)}FLOP/s, a matrix product measured now"
    return Rate(measured * _SHARE_OF_MATMUL * num_devices, basis)


def estimate(program: Program) -> Estimate:
    """Expected time per step; measures a matrix product where the chip's peak is not known."""
    per_row = flops.flops_per_row(program.config.model, program.row)
    step_flops = per_row.full * program.config.train.global_batch_size
    rate = expected_rate(program.device, program.mesh.devices.size, program.model.dtype)
    return Estimate(step_flops, step_flops / rate.flops, rate.basis)


def memory(program: Program) -> dict[str, int]:
    """Estimated bytes on each device at the peak of a step, by part."""
    return flops.memory(
        program.config,
        program.row,
        program.rows_per_device,
        program.computing,
        accumulates=program.num_micro > 1,
        chunk=program.loss_chunk,
    )


def memory_warning(program: Program) -> str | None:
    """A line on a run that is too large, before the system kills it without one; else None."""
    needed, there = sum(memory(program).values()), device_lib.capacity(program.device)
    if needed <= there:
        return None
    return (
        f"this run takes about {size(needed)} on each device and there are {size(there)}: it may "
        "be killed without a word; tools/doctor.py --config=FILE says what would fit"
    )


def headline(program: Program, expected: Estimate) -> list[str]:
    """Three lines on top of every run."""
    config, train = program.config, program.config.train
    num_params = sum(leaf.size for leaf in jax.tree.leaves(program.abstract.params))
    row = program.row
    tokens = train.global_batch_size * row.tokens
    shape = f"({row.source} + {row.target})" if row.source else f"{row.target}"
    micro = f", {program.num_micro} micro-batches of {program.micro_rows}" * (program.num_micro > 1)
    axes = [f"{axis} {size}" for axis, size in program.mesh.shape.items() if size > 1]
    mesh = f" ({' x '.join(axes)})" if axes else ""
    device = f"{program.mesh.devices.size} x {program.device.device_kind}{mesh}"
    total = expected.seconds_per_step * train.num_steps
    return [
        f"{config.family} {config.model.preset or ''}: {count(num_params)} parameters, "
        f"objective {config.objective.name}, {device}, "
        f"{program.model.dtype.name} ({program.dtype_reason})",
        f"{train.num_steps:,} steps of {train.global_batch_size} x {shape} = {tokens:,} tokens"
        f"{micro}; {count(tokens * train.num_steps)} tokens in all",
        f"expected: {duration(total)} ({count(expected.flops_per_step)}FLOP a step, "
        f"{expected.seconds_per_step:.3g} s at {expected.basis})",
    ]


def data_lines(program: Program, data: Data) -> list[str]:
    """One line on the text of a run, and one on each source of a mixture."""
    epochs = data.epochs(program.config.train.num_steps * program.config.train.global_batch_size)
    kinds = f" of {data.stores.tokenizer.vocab_size:,} kinds"
    if labels := program.config.objective.labels:
        kinds = f" of {len(labels)} classes ({', '.join(labels[:8])}{', ...' * (len(labels) > 8)})"
    elif objectives.is_labelled(program.config):
        kinds = ""
    line = f"text: {_amount(data.stores.train)}{kinds}; held out: {_amount(data.stores.held_out)}"
    if not data.names:
        return [f"{line}; {_passes(epochs[0])}"]
    width = max(map(len, data.names))
    return [line] + [
        f"  {name:{width}}  {share:6.2%} of the rows  {_amount([store])}; {_passes(passes)}"
        for (name, share), store, passes in zip(
            data.shares.items(), data.stores.train, epochs, strict=True
        )
    ]


def _passes(epochs: float) -> str:
    return f"{epochs:.3g} epochs" if epochs < 100 else f"{epochs:,.0f} epochs"


def _amount(stores: Iterable[Store] | Iterable[LabelledSet]) -> str:
    stores = list(stores)
    if isinstance(stores[0], LabelledSet):
        return f"{sum(len(store.records) for store in stores):,} examples"
    documents, tokens = zip(*((s.num_documents, s.num_tokens) for s in stores), strict=True)
    return f"{sum(documents):,} documents, {count(sum(tokens))} tokens"


def words_line(pieces: Pieces) -> str | None:
    """One line on scripts without spaces, if they matter; else None."""
    enough = _MATTERING_SHARE * len(pieces.ends_word)
    marked, unmarked = (
        ", ".join(f"{script} ({n:,} pieces)" for script, n in scripts if n >= enough)
        for scripts in (pieces.segmented, pieces.unsegmented)
    )
    said = [f"{marked} as spaces or U+200B mark them"] * bool(marked)
    said += [
        f"{unmarked} piece by piece, since nothing marks them; for real words put spaces or U+200B "
        "(zero width space) between them and train the tokenizer on that text"
    ] * bool(unmarked)
    return f"words: {'; '.join(said)}" if said else None


def summary(program: Program, folder: Workdir, rows: Iterable[dict[str, Any]]) -> list[str]:
    """What a finished run says: its losses, its baseline, its files, and what to do next."""
    last = {row["split"]: row for row in rows}
    lines = []
    if "train" in last:
        lines.append(f"train loss     {last['train']['loss']:.4f} nats per predicted token")
    if "eval" in last:
        row = last["eval"]
        gain = row["content_unigram_loss"] - row["content_loss"]
        frequencies = "word" if program.config.model.predicts_tokens else "class"
        bits = f", {row['bits_per_byte']:.3f} bits per byte" if "bits_per_byte" in row else ""
        lines += [
            f"held-out loss  {row['loss']:.4f}, content loss {row['content_loss']:.4f}{bits}",
            f"unigram        {row['content_unigram_loss']:.4f}, what {frequencies} frequencies "
            "alone give: "
            + (f"beaten by {gain:.2f} nats" if gain > 0 else "not beaten yet, train longer"),
            *(f"{'answers' * (i == 0):14} {line}" for i, line in enumerate(measured(row))),
        ]
    steps = program.config.train.num_steps
    return [
        *lines,
        f"checkpoint     {folder.checkpoints}/{steps}",
        "next           look at its batches:  "
        f"python tools/inspect_batches.py --workdir={folder.name} --steps=0:1",
        "               train it further:     "
        f"python -m lmjax.main --workdir={folder.name} --config.train.num_steps={2 * steps}",
        "               see how it went:      "
        f"python tools/report.py --workdir={folder.name} --output=report.html"
        "  (pip install 'lmjax[report]')",
        "               use it elsewhere:     "
        f"python tools/export_hf.py --workdir={folder.name} --output=FOLDER",
    ]


def field_table() -> Table:
    """Every config field with its default and meaning."""
    table = Table(_name("field"), "default", "on resume", "meaning", title="Config fields")

    def add(section: config_lib.Section, prefix: str) -> None:
        for name, info in type(section).model_fields.items():
            value = getattr(section, name)
            if isinstance(value, config_lib.Section):
                add(value, f"{prefix}{name}.")
            else:
                free = "free" if info.json_schema_extra["free"] else "fixed"
                table.add_row(f"{prefix}{name}", str(value), free, info.description)

    add(Config(), "config.")
    return table


def dry_run(program: Program, console: RichConsole) -> None:
    """Prints config, parameters, memory, FLOPs, shardings and time; touches no data."""
    config = program.config
    for line in headline(program, estimate(program)):
        console.print(line, highlight=False, markup=False)
    console.print(_config_table(config))
    console.print(_parameter_table(program))
    console.print(_cost_table(program))


def _name(header: str) -> Column:
    return Column(header, overflow="fold")  # a name cut short is no name


def _config_table(config: Config) -> Table:
    table = Table(_name("field"), "value", "on resume", title="Config")
    for name, value, is_free in fields_lib.leaves(config):
        table.add_row(f"config.{name}", str(value), "free" if is_free else "fixed")
    return table


def _parameter_table(program: Program) -> Table:
    table = Table(_name("parameter"), "shape", "number", "sharding", title="Parameters")
    leaves = jax.tree_util.tree_leaves_with_path(program.abstract.params)
    shardings = jax.tree.leaves(program.shardings.params)
    parts: dict[str, int] = {}
    for (path, leaf), sharding in zip(leaves, shardings, strict=True):
        name = name_of(path)
        parts[name.split("/")[0]] = parts.get(name.split("/")[0], 0) + leaf.size
        split = [
            f"{axes if isinstance(axes, str) else ' x '.join(axes)} {n}"
            for axes in sharding.spec
            if (n := num_parts(program.mesh, axes)) > 1
        ]
        table.add_row(name, str(leaf.shape), f"{leaf.size:,}", ", ".join(split) or "replicated")
    table.add_section()
    for part, number in parts.items():
        table.add_row(f"{part}/", "", f"{number:,}", "")
    table.add_row("all", "", f"{sum(parts.values()):,}", "", style="bold")
    return table


def _cost_table(program: Program) -> Table:
    config, parts = program.config, memory(program)
    table = Table("cost", "value", title="Memory on each device (estimate) and work")
    for part, num_bytes in parts.items():
        table.add_row(part, size(num_bytes))
    table.add_row("all", size(sum(parts.values())), style="bold")
    table.add_section()
    per_row = flops.flops_per_row(config.model, program.row)
    per_token = flops.flops_per_token(config.model, program.row)
    table.add_row("micro-batches a step", f"{program.num_micro} of {program.micro_rows} rows")
    table.add_row("model FLOPs a step", f"{per_row.full * config.train.global_batch_size:.4g}")
    table.add_row("model FLOPs a token (full attention)", f"{per_token.full:.4g}")
    table.add_row("model FLOPs a token (causal halved)", f"{per_token.causal:.4g}")
    return table
