"""Figures as tables to read and as JSON to keep, with the versions that they hang on."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from rich.table import Table

from lmjax import paths
from lmjax.bench.ablation import Row
from lmjax.bench.attention import Layer
from lmjax.bench.campaign import Outcome
from lmjax.bench.checks import Checks
from lmjax.bench.input import FILL_TARGET, InputRates
from lmjax.bench.packing import PackingRates
from lmjax.bench.planned import Planned
from lmjax.bench.saving import Saving
from lmjax.bench.startup import Startup
from lmjax.bench.training import PEERS, Training
from lmjax.config import Config
from lmjax.train.console import count, duration, size

if TYPE_CHECKING:
    from lmjax.bench.curation import Curation  # whose packages are an extra

_PACKAGES = ("lmjax", "jax", "numpy", "array_record", "grain", "transformers", "torch", "datatrove")


def input_table(rates: InputRates, config: Config, title: str) -> Table:
    """Rates of the input pipeline, beside what they should reach."""
    per_core, packing = "tokens/s per core", config.data.packing
    table = Table("what", "measured", "to reach", title=title)
    table.add_row(f"read windows, {per_core}", count(rates.read), "")
    table.add_row(f"objective {rates.objective}, {per_core}", count(rates.corrupt), "")
    rows = f"{rates.rows} rows of {config.data.seq_len}, packing={packing}"
    table.add_row(
        f"whole batches ({rows}), {per_core}",
        count(rates.batch),
        count(rates.target),
        style="bold",
    )
    for side, share in rates.fill.items():
        wanted = f"{FILL_TARGET:.0%}" if (side, packing) == ("read", "pack") else ""
        table.add_row(f"fill of the rows, {_SIDES[side]}", f"{share:.2%}", wanted)
    if rates.peer is not None:
        peer = rates.peer
        table.add_row(f"{peer.name} ({peer.form}), {per_core}", count(peer.rate), "")
        wanted = f"{peer.target:.2g}x"
        table.add_row(
            "objective alone to that", f"{peer.objective_ratio:.2f}x", wanted, style="bold"
        )
        table.add_row("whole batches, read and packed, to that", f"{peer.ratio:.2f}x", "")
    return table


_SIDES = {
    "read": "all that is read",
    "inputs": "inputs",
    "enc_inputs": "encoder's inputs",
    "targets": "predicted positions",
}


def training_table(found: Training, title: str) -> Table:
    """Rates of training, beside those of peers."""
    share = f"of {count(found.matmul)}FLOP/s"
    table = Table("", "tokens/s", "step", "lmjax to it", share, title=title)
    for name in (*(["MFU"] if found.peak else []), "memory", "first step", "first loss"):
        table.add_column(name)
    for name, of in found.rates.items():
        is_peer = name in PEERS
        table.add_row(
            f"{PEERS[name]} ({of.note})" if is_peer else name,
            count(of.tokens),
            _milliseconds(of.seconds),
            f"{of.ratio:.2f}x" if is_peer else "",
            f"{found.share(of):.1%}",
            *([f"{found.mfu(of):.1%}"] if found.peak else []),
            "" if of.memory is None else f"{of.memory / 2**30:.2f} GiB",
            f"{of.first_seconds:.1f} s",
            f"{of.loss:.4f}",
            style=None if is_peer else "bold",
        )
    for name, why in found.failed.items():
        table.add_row(PEERS[name], f"none: {why}")
    parts = ", ".join(f"{k} {v / 2**30:.2f}" for k, v in found.estimated.items())
    table.caption = (
        f"{count(found.flops)}FLOP a step; counted in GiB: {parts}; "
        f"in all {sum(found.estimated.values()) / 2**30:.2f}"
    )
    return table


def checks_table(found: Checks, title: str) -> Table:
    """What each check takes, and its share of the time of a step."""
    table = Table("check", "takes", "share of a step", title=title)
    step, per_save = found.step, found.step * found.num_steps
    table.add_row(
        f"finite updates only ({found.rounds} rounds)",
        _milliseconds(found.guard),
        f"{found.guard / step:.2%}",
    )
    table.add_row("watchdog", _milliseconds(found.watchdog), f"{found.watchdog / step:.2%}")
    for name, seconds in (
        ("fingerprints of arrays", found.fingerprint),
        ("SHA-256 of files", found.sums),
    ):
        label = f"{name}, every {found.num_steps} steps"
        table.add_row(label, _milliseconds(seconds), f"{seconds / per_save:.2%}")
    table.add_row("all, of a step of", _milliseconds(step), f"{found.share:.2%}", style="bold")
    return table


def curation_table(found: Curation, title: str) -> Table:
    """Rates of a whole curation and of each of its filters, per core."""
    table = Table("", "takes", "documents/s", "MB/s", title=title)

    def row(name: str, seconds: float, documents: int, size: int, **style: Any) -> None:
        rates = ("", "")
        if documents:
            rates = (f"{documents / seconds:,.0f}", f"{size / seconds / 1e6:,.2f}")
        table.add_row(name, f"{seconds:.2f} s", *rates, **style)

    for name, (seconds, documents, num_bytes) in found.filters.items():
        row(name.replace("_", " "), seconds, documents, num_bytes)
    row("lmjax, all", found.seconds, found.documents, found.bytes, style="bold")
    row("datatrove's own chain", found.engine_seconds, found.documents, found.bytes)
    table.caption = f"lmjax to it: {found.ratio:.2f}x; medians of {found.blocks} runs, CPU seconds"
    return table


def ablation_table(rows: Mapping[str, Row], title: str) -> Table:
    """Each switch, to the step as it is."""
    table = Table("one thing other", "step", "speed", "memory", title=title)
    for name, row in rows.items():
        memory = "" if row.memory is None else f"{row.memory / 2**20:,.0f} MiB"
        table.add_row(name, _milliseconds(row.seconds), f"{row.ratio:.2f}x", memory)
    return table


def attention_table(layers: Mapping[str, Layer], title: str) -> Table:
    """Kernels of each kind of layer, with their errors."""
    table = Table("layer", "kernel", "forward", "and back", "to xla", title=title)
    for name in ("error of the result", "of its gradients"):
        table.add_column(name)
    for name, layer in layers.items():
        for kernel, found in layer.kernels.items():
            table.add_row(
                name,
                kernel,
                _milliseconds(found.forward),
                _milliseconds(found.both),
                f"{layer.kernels['xla'].both / found.both:.2f}x",
                f"{found.error:.1e}",
                f"{found.gradient_error:.1e}",
            )
        for kernel, why in layer.failed.items():
            table.add_row(name, kernel, "", "", "", "", why)
    table.caption = "errors to float64, as shares of the largest value, of one row"
    return table


def startup_table(found: Startup, title: str) -> Table:
    """Seconds to the first step, beside what they should be."""
    table = Table("from the start of the process", "first step after", "to reach", title=title)
    table.add_row("nothing compiled before", f"{found.first:.1f} s", "20 s")
    wanted = f"{found.first / 2:.1f} s"
    table.add_row("everything in the compilation cache", f"{found.second:.1f} s", wanted)
    table.caption = f"medians of {found.rounds}"
    return table


def saving_table(found: Saving, title: str) -> Table:
    """What a save takes of a run."""
    table = Table("a save", "takes", title=title)
    table.add_row("size of the state", f"{found.num_bytes / 2**20:,.0f} MiB")
    table.add_row("the loop stands still", f"{found.stands_still:.2f} s")
    table.add_row("until it is on disk", f"{found.landed:.2f} s")
    table.add_row("of the run in all, slower steps included", f"{found.extra:.2f} s")
    name = f"share of a run with a save every {found.num_steps} steps of {found.step:.3g} s"
    table.add_row(name, f"{found.share:.2%}", style="bold")
    table.caption = f"medians of {found.rounds}"
    return table


def planned_table(found: Planned, title: str) -> Table:
    """What was planned and what came of it."""
    table = Table("", "predicted", "measured", "off by", title=title)

    def add(name: str, pair: tuple[float, float], show: Callable[[float], str]) -> None:
        predicted, measured = pair
        table.add_row(name, show(predicted), show(measured), f"{predicted / measured - 1:+.1%}")

    add("bytes of parameters", found.parameters, lambda n: f"{n:,.0f}")
    add("bytes of the optimizer", found.optimizer, lambda n: f"{n:,.0f}")
    add("memory, by the compiler", found.memory, size)
    add("memory, from the config alone", (found.estimated, found.memory[1]), size)
    add("a step", found.seconds, _milliseconds)
    table.caption = (
        f"predicted at {found.share:.1%} of {count(found.rate)}FLOP/s; {found.calibrated:.1%} were "
        f"reached; medians of {found.rounds}"
    )
    return table


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.{3 if seconds < 0.01 else 1}f} ms"


def packing_table(rates: Mapping[str, PackingRates], title: str) -> Table:
    """Each packing's fill and rates, beside those of one document a row."""
    table = Table("packing", "rows an epoch", "fill", title=title)
    for kind in ("step alone", "with input"):
        table.add_column(f"real tokens/s, {kind}")
        table.add_column("to document")
    for name, found in rates.items():
        cells = [name, count(found.num_rows), f"{found.fill['read']:.2%}"]
        for rate in (found.step, found.input):
            cells += [count(rate.tokens), f"{rate.ratio:.2f}x"]
        table.add_row(*cells)
    return table


def campaign_table(outcomes: Sequence[Outcome]) -> Table:
    """What came of a campaign of faults on each variant."""
    table = Table("", *(outcome.variant for outcome in outcomes), title="faults survived")
    points = sorted(set().union(*(outcome.points() for outcome in outcomes)))
    for point in points:
        table.add_row(point, *(str(outcome.points()[point]) for outcome in outcomes))
    for name, cell in (
        ("went on by the same command", lambda o: f"{o.resumed}/{len(o.ends)}"),
        ("largest difference of the last state", lambda o: f"{o.ulps} ULP"),
        ("rows of metrics that differ", lambda o: f"{o.differing_rows}/{o.rows}"),
        ("steps trained on other rows", lambda o: f"{o.differing_steps}/{o.steps}"),
        ("slowest end after SIGTERM", lambda o: "" if o.slowest is None else f"{o.slowest:.1f} s"),
        ("in all", lambda o: duration(o.seconds)),
    ):
        table.add_row(name, *(cell(outcome) for outcome in outcomes))
    return table


def damage_table(damaged: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Table:
    """What restarts did about damaged checkpoints of each variant."""
    table = Table("", "", *damaged, title="damaged checkpoints")
    kinds = sorted({kind for came in damaged.values() for kind in came})
    for kind in kinds:
        ends = sorted({end for came in damaged.values() for end in came[kind]})
        for end in ends:
            counts = (str(came[kind].get(end, 0)) for came in damaged.values())
            table.add_row(kind, end, *counts)
    return table


def markdown(table: Table) -> str:
    """A table as Markdown, its caption below."""
    rows = [[str(column.header) for column in table.columns], ["---"] * len(table.columns)]
    rows += zip(*(column.cells for column in table.columns), strict=True)
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines + (["", str(table.caption)] if table.caption else []))


def write(
    path: str, what: str, config: Config | None, figures: Mapping[str, Any], table: Table
) -> None:
    """Writes figures, and what they were measured of, to a JSON file; beside it the table (.md)."""
    content = {
        "what": what,
        **({} if config is None else _described(config)),
        **figures,
        **environment(),
    }
    paths.write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())
    below = measured_on(content)
    text = f"**{table.title}**\n\n{markdown(table)}\n\n{below}\n"
    paths.write_bytes(str(Path(path).with_suffix(".md")), text.encode())


def environment() -> dict[str, Any]:
    """What figures hang on: date, machine, versions, cores."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": _machine(),
        "versions": _versions(),
        "cores": os.cpu_count(),
    }


def measured_on(content: Mapping[str, Any]) -> str:
    """The same of figures, as a line to read."""
    packages = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return f"{content['date']}; {content['machine']}; {packages}."


def _described(config: Config) -> dict[str, Any]:
    return {
        "family": config.family,
        "objective": config.objective.name,
        "packing": config.data.packing,
        "seq_len": config.data.seq_len,
        "batch_size": config.train.global_batch_size,
    }


def _machine() -> str:
    """Accelerators, or the CPU."""
    devices = jax.devices()
    if devices[0].platform != "cpu":
        return f"{len(devices)} x {devices[0].device_kind}"
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        name = next((value for key, _, value in lines if key.startswith("model name")), name)
    return f"{len(os.sched_getaffinity(0))} cores of {name.strip()}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
