"""A plan as a person reads it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from lmjax.train.console import count, duration, size


def show(name: str, found: dict[str, Any], console: Console) -> None:
    """Prints a plan.

    Args:
      name: of the config.
      found: from `plan.as_dict`.
      console: where to.
    """
    table = Table(title=f"{name} on {found['topology']['name']}", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for row in _rows(found):
        table.add_row(*row)
    console.print(table)
    for line in found["advice"]:
        console.print(f"- {line}", highlight=False, markup=False)


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    where, step, tokens = found["topology"], found["step"], found["tokens"]
    mesh = " x ".join(f"{axis} {n}" for axis, n in where["mesh"].items())
    rows = [
        ("devices", f"{where['devices']} x {where['kind']}" + f" ({mesh})" * bool(mesh)),
        ("figures are", found["basis"] + _seconds(found)),
        ("fits", _fits(found["fits"], found["memory"])),
    ]
    rows += _memory(found["memory"])
    if "way" in found:
        way = " ".join(f"{key}={value}" for key, value in found["way"].items())
        rows += [("fits with", way), ("", _fits(True, found["memory_of_way"]))]
        rows += _memory(found["memory_of_way"])
    kernel = f"{step['kernel']} attention" + f", remat {step['remat']}"
    micro = f"{step['rows']} rows, {step['micro_batch_size']} at a time, {step['dtype']}, {kernel}"
    rows += [
        ("step", micro),
        ("parameters", count(found["parameters"])),
        ("FLOPs of a step", count(found["flops"]["step"])),
        *_network(found["collectives"]),
        *_time(found),
        ("tokens", f"{count(tokens['run'])}, {tokens['per_parameter']:.3g} a parameter"),
        ("compute-optimal", f"about {count(tokens['compute_optimal'])} tokens"),
        ("raw text for that", _raw(tokens)),
    ]
    return rows


def _seconds(found: dict[str, Any]) -> str:
    seconds = found["compile_seconds"]
    return "" if seconds is None else f" in {duration(seconds)}"


def _fits(fits: bool, memory: dict[str, int]) -> str:
    return f"{'yes' if fits else 'no'}: {size(memory['total'])} of {size(memory['capacity'])}"


def _memory(memory: dict[str, int]) -> list[tuple[str, str]]:
    parts = [f"{name} {size(n)}" for name, n in memory.items() if n]
    parts = [part for part in parts if part.split()[0] not in ("total", "capacity")]
    return [("memory of each", ", ".join(parts))] if parts else []


def _network(collectives: list[dict[str, Any]]) -> list[tuple[str, str]]:
    rows = []
    for each in collectives:
        outer = ", between slices or hosts" if each["outer"] else ""
        axes = " x ".join(each["axes"])
        rows.append(
            (
                f"{each['kind']}",
                f"over {axes}: {each['count']:,} of {size(each['bytes'])} in all, "
                f"{size(each['received'])} into each device{outer}",
            )
        )
    return rows or [("collectives", "none")]


def _time(found: dict[str, Any]) -> list[tuple[str, str]]:
    roofline, time = found["roofline"], found["time"]
    rows = []
    if roofline is not None:
        bounds = ", ".join(f"{k} {roofline[k]:.3g} s" for k in ("compute", "memory", "network"))
        rows.append(("a step at the least", f"{roofline['seconds']:.3g} s ({bounds})"))
    of_peak = f"{time['mfu']:.0%} of {count(time['peak_flops'])}FLOP/s"
    run = f"the run {duration(86_400 * time['days'])}, {time['chip_hours']:,.3g} device-hours"
    return [*rows, (f"at {of_peak}", f"{time['seconds_per_step']:.3g} s a step, {run}")]


def _raw(tokens: dict[str, Any]) -> str:
    sizes = [size(n) for n in tokens["raw_text_bytes"]]
    keep = [f"{100 * share:.2g}" for share in reversed(tokens["keep_rate"])]
    text = " to ".join(dict.fromkeys(sizes))
    kept = f"{' to '.join(keep)} % of it kept"
    return f"{text}: {kept}, {tokens['bytes_per_token']:g} bytes a token"
