"""What a compiled program sends between devices: every collective of its HLO, with its bytes.

XLA numbers the devices of a program by their places in the mesh, so the groups of a collective say
which axes it goes over. Bodies of loops count as often as they run. An asynchronous collective is
written wherever a part of it runs, and counted where it begins.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# On TPUs: one that goes on beside several computations, and the computation in which it begins.
_PART, _START = "chain_id", "AsyncCollectiveStart"
_SIZES = {"pred": 1, "bf16": 2, "f8e4m3fn": 1, "f8e5m2": 1, "s4": 0.5, "u4": 0.5}


@dataclass(frozen=True)
class Collective:
    """All runs of one kind over the same axes in one step.

    Attributes:
      kind: as XLA has it.
      axes: of the mesh that it goes over.
      outer: whether it leaves a slice or a host (`chips.Chip.link_rate`).
      count: runs in a step.
      bytes: of the whole arrays of all runs: gathered, reduced or sent on.
      received: bytes that come into each device for them, by rings.
    """

    kind: str
    axes: tuple[str, ...]
    outer: bool
    count: int
    bytes: int
    received: int

    def times(self, number: int) -> Collective:
        """Of so many runs of the program."""
        more = (self.count * number, self.bytes * number, self.received * number)
        return Collective(self.kind, self.axes, self.outer, *more)


def received(kind: str, num_bytes: float, members: int) -> float:
    """Bytes into each of `members` devices of a group, for a whole array of `num_bytes`.

    By rings, which no algorithm beats (Patarasuk and Yuan 2009): a reduction is scattered and then
    gathered.
    """
    if kind == "collective-permute":
        return num_bytes
    return (2 if kind == "all-reduce" else 1) * num_bytes * (members - 1) / members


def total(found: Iterable[Collective]) -> list[Collective]:
    """One entry for each kind, axes and network; the most bytes first."""
    sums: dict[tuple, list[int]] = defaultdict(lambda: [0, 0, 0])
    for each in found:
        entry = sums[each.kind, each.axes, each.outer]
        for i, value in enumerate((each.count, each.bytes, each.received)):
            entry[i] += value
    entries = [Collective(*key, *values) for key, values in sums.items()]
    return sorted(entries, key=lambda each: -each.received)


def of_program(
    hlo: str, axes: Mapping[str, int], domains: Sequence[int] | None = None
) -> list[Collective]:
    """The collectives of a program, as `total` has them.

    Args:
      hlo: text of the compiled module.
      axes: names and sizes of the mesh, whose flattened devices it was compiled for.
      domains: of each of these, the slice or host that it is in; None: all are in one.
    """
    computations = _computations(hlo)
    runs = _runs(computations)
    found = []
    for name, body in computations.items():
        begins = any(_START in line for line in body)
        for line in body if runs[name] else ():
            if _PART in line and not begins:
                continue
            one = _collective(line, name, axes, domains)
            if one is not None:
                found.append(one.times(runs[name]))
    return total(found)


def _computations(hlo: str) -> dict[str, list[str]]:
    """Instructions of each computation; that of the program is called ''."""
    found: dict[str, list[str]] = {}
    body: list[str] | None = None
    for line in hlo.splitlines():
        if body is None:
            head = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
            if head and "=" not in line.split("(")[0]:
                body = found.setdefault("" if head[1] else head[2], [])
        elif line == "}":
            body = None
        else:
            body.append(line)
    return found


def _runs(computations: Mapping[str, list[str]]) -> Counter[str]:
    """How often each computation runs in one run of the program."""
    callers: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, body in computations.items():
        for line in body:
            loop = re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line)
            times = _trips(line, computations[loop[1]]) if loop else 1
            for called in _called(line):
                if called in computations:
                    callers[called].append((name, times))
    counted: dict[str, int] = {"": 1}

    def count(name: str) -> int:
        if name not in counted:
            counted[name] = sum(count(caller) * times for caller, times in callers[name])
        return counted[name]

    return Counter({name: count(name) for name in computations})


def _called(line: str) -> list[str]:
    """Computations that an instruction runs."""
    names = re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)", line)
    for several in re.findall(r"(?:branch_computations|called_computations)=\{([^}]*)\}", line):
        names += [name.strip().lstrip("%") for name in several.split(",")]
    return names


def _trips(line: str, condition: Sequence[str]) -> int:
    """How often the body of a loop runs: XLA says it, or the bound that its counter has.

    Raises:
      ValueError: neither is there.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
    if known:
        return int(known[1])
    bounds = [n for each in condition for n in re.findall(r"[su]32\[\]\S* constant\((\d+)\)", each)]
    if len(bounds) != 1:
        raise ValueError(f"a loop without a number of rounds: {line.strip()[:200]}")
    return int(bounds[0])


def _collective(
    line: str, computation: str, axes: Mapping[str, int], domains: Sequence[int] | None
) -> Collective | None:
    """What an instruction sends; None: nothing."""
    match = re.match(r"\s*(?:ROOT )?%?[\w.\-]+ = (.*)", line)
    if match is None:
        return None
    kind, sizes = _kind(match[1])
    if kind is None:
        return None
    groups = _groups(line, math.prod(axes.values()))
    members = 2 if kind == "collective-permute" else len(groups[0])
    if "-start(" in line and kind != "all-reduce":  # its type has the operands, too
        sizes = sizes[1:2] if kind == "collective-permute" else sizes[len(sizes) // 2 :]
    num_bytes = sum(sizes)
    if kind == "reduce-scatter":
        num_bytes *= members
    if computation.startswith("all-reduce-scatter"):  # that of a TPU
        kind = "reduce-scatter"
    over = _axes(groups, axes)
    if not over:
        return None
    outer = domains is not None and any(len({domains[i] for i in group}) > 1 for group in groups)
    into = received(kind, num_bytes, members)
    return Collective(kind, over, outer, 1, int(num_bytes), int(into))


def _kind(text: str) -> tuple[str | None, list[float]]:
    """Kind of a collective, and bytes of the parts of its result, of TYPE OPCODE(..."""
    if text.startswith("("):
        depths = itertools.accumulate((c == "(") - (c == ")") for c in text)
        end = next(i for i, depth in enumerate(depths) if depth == 0) + 1
    else:
        end = text.find(" ")
    opcode = text[end:].lstrip().split("(")[0].removesuffix("-start")
    if opcode not in _KINDS:
        return None, []
    return opcode, [_bytes(*each) for each in re.findall(r"(\w+)\[([\d,]*)\]", text[:end])]


def _bytes(dtype: str, dims: str) -> float:
    bits = re.search(r"\d+$", dtype)
    size = _SIZES.get(dtype) or int(bits[0]) / 8
    return size * math.prod(int(dim) for dim in dims.split(",") if dim)


def _groups(line: str, num_devices: int) -> list[list[int]]:
    """Devices that exchange with each other, in any of the ways that XLA writes them."""
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
    if pairs:
        return [[int(i) for i in each] for each in re.findall(r"(\d+),(\d+)", pairs[1])]
    ordered = r"(?:, device_ids=\(\[([\d,]+)\]T\(([\d,]+)\)\))?"
    named = re.search(rf"replica_groups=mesh\[([^\]]*)\]{ordered} \{{(.*?)\}}", line)
    if named:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        over = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", named[4])]
        ids = _ids(named[2] or str(num_devices), named[3])
        return _along(ids.reshape(list(sizes.values())), over)
    tiled = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if tiled:
        shape = [int(n) for n in tiled[1].split(",")]
        return _ids(tiled[2], tiled[3]).reshape(shape).tolist()
    listed = re.search(r"replica_groups=\{(\{.*?\})\}", line)
    if listed:
        found = re.findall(r"\{([\d,]+)\}", listed[1])
        return [[int(i) for i in group.split(",")] for group in found]
    if "replica_groups={}" not in line and "replica_groups" in line:
        raise ValueError(f"groups of devices in a form that is not known: {line.strip()[:400]}")
    return [list(range(num_devices))]


def _ids(shape: str, order: str | None) -> np.ndarray:
    """Numbers of all devices in a shape, its dims then in another order."""
    ids = np.arange(math.prod(map(int, shape.split(",")))).reshape([*map(int, shape.split(","))])
    return ids if order is None else ids.transpose([int(n) for n in order.split(",")])


def _along(ids: np.ndarray, over: list[int]) -> list[list[int]]:
    """Groups of devices that differ along some dims of a mesh of their numbers."""
    members = math.prod(ids.shape[i] for i in over)
    return np.moveaxis(ids, over, range(-len(over), 0)).reshape(-1, members).tolist()


def _axes(groups: Sequence[Sequence[int]], axes: Mapping[str, int]) -> tuple[str, ...]:
    """Axes of the mesh along which members of a group differ."""
    places = np.stack(np.unravel_index(np.arange(math.prod(axes.values())), list(axes.values())))
    varies = np.zeros(len(axes), bool)
    for group in groups:
        of_group = places[:, list(group)]
        varies |= (of_group != of_group[:, :1]).any(axis=1)
    return tuple(name for name, differs in zip(axes, varies, strict=True) if differs)
