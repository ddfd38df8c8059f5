"""The text and tables of a report."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lmjax import fields as fields_lib
from lmjax.config import Config
from lmjax.pages import markup
from lmjax.pages.markup import Html, tag
from lmjax.report import unusual
from lmjax.report.gather import Run
from lmjax.train.console import count, duration

_EXCERPT = 400  # characters that are shown of a text
_MOMENTS = 6  # of the course of training that samples are shown of
_TROUBLES = 30


def overview(runs: Sequence[Run]) -> Html:
    """What each run is and where it stands, a column for each."""
    rows: dict[str, list[str]] = {}
    for number, run in enumerate(runs):
        for name, value in _facts(run):
            rows.setdefault(name, [""] * len(runs))[number] = value
    if len(runs) == 1:
        return markup.facts([(name, values[0]) for name, values in rows.items()])
    header = ["", *[run.label for run in runs]]
    return markup.table(header, [[name, *values] for name, values in rows.items()])


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    facts, config = run.facts, run.facts.config
    train, held_out = facts.last("train") or {}, facts.last("eval") or {}
    preset = f" {config.model.preset}" if config.model.preset else ""
    yield "model", f"{config.family}{preset}, {config.model.architecture.replace('_', '-')}"
    yield "parameters", f"{run.num_parameters:,}"
    yield "objective", config.objective.name
    yield "text", ", ".join(config.data.source_names) or _text_name(config)
    steps = config.train.num_steps
    done = "finished" if run.step >= steps else f"{run.step / steps:.0%}"
    yield "step", f"{run.step:,} of {steps:,} ({done})"
    if "tokens" in train:
        yield "tokens seen", count(train["tokens"])
    if facts.seconds:
        yield "time in steps", duration(facts.seconds)
    if run.goodput is not None:
        yield "goodput", f"{run.goodput:.0%} of {duration(run.timeline.seconds)}"
    if "tokens_per_second" in train:
        rates = run.train["tokens_per_second"]
        yield "tokens per second, median", count(float(np.nanmedian(rates)))
    if "mfu" in train:
        yield "MFU, median", f"{float(np.nanmedian(run.train['mfu'])):.1%}"
    if held_out:
        yield "held-out content loss", _against(held_out)
    if "bits_per_byte" in held_out:
        yield "bits per byte", f"{held_out['bits_per_byte']:.3f}"
    hardware = facts.meta.get("hardware")
    if isinstance(hardware, dict):
        device, number = hardware.get("device", "?"), hardware.get("num_devices", "?")
        yield "hardware", f"{number} x {device}, {hardware.get('dtype', '?')}"
    versions = facts.meta.get("versions")
    if isinstance(versions, dict):
        wanted = ("lmjax", "jax", "flax", "python")
        yield "versions", ", ".join(f"{x} {versions[x]}" for x in wanted if x in versions)


def _text_name(config: Config) -> str:
    """The text's path without the machine's folders; of a glob, with the folder that it is in."""
    parts = [str(path).rstrip("/").split("/") for path in config.data.paths]
    return ", ".join("/".join(part[-2:] if "*" in part[-1] else part[-1:]) for part in parts)


def _against(row: Mapping[str, Any]) -> str:
    loss, unigram = row.get("content_loss"), row.get("content_unigram_loss")
    if loss is None or unigram is None:
        return f"loss {row.get('loss', float('nan')):.4f}"
    return f"{loss:.4f} (word frequencies alone {unigram:.4f})"


def spikes(runs: Sequence[Run]) -> list[Html]:
    """Steps that stand out, each with the command that shows it from within."""
    parts = []
    for run in runs:
        found = unusual.find(run.train)
        if not found:
            parts.append(_p(f"{run.label}: no step lies above its neighbours."))
            continue
        rows = [
            [
                f"{each.step:,}",
                "loss" if each.what == "loss" else "gradient norm",
                f"{each.value:.4g}",
                f"{each.usual:.4g}",
                _deviations(each),
                _replay(run, each.step),
            ]
            for each in found
        ]
        header = ["step", "what", "there", "usual around it", "deviations", "look inside"]
        parts += [_p(f"{run.label}:")] * (len(runs) > 1)
        parts.append(markup.table(header, rows, numeric={0, 2, 3, 4}))
    parts.append(
        _p(
            "The loss or gradient norm of these steps lies farthest above those around them; in "
            "bold what chance hardly brings about in so many rows. Replaying a step shows its "
            "batch, text by text."
        )
    )
    return parts


def _deviations(each: unusual.Unusual) -> Html:
    said = f"{each.score:.1f}"
    return markup.escape(said) if each.by_chance else tag("strong", said)


def _replay(run: Run, step: int) -> Html:
    return tag("code", f"python -m lmjax.main --mode=replay --workdir={run.path} --step={step}")


def time_spent(run: Run) -> list[Html]:
    """Where the time went, and the processes that ran the run."""
    timeline, seconds = run.timeline, run.facts.seconds
    if not timeline.starts:
        return [_p("There is no log of it here.")]
    per_step = seconds / max(run.step, 1)
    repeated = min(timeline.repeated * per_step, timeline.seconds)
    rest = max(0.0, timeline.seconds - seconds - repeated - timeline.away)
    parts = {
        "steps that count": seconds,
        "steps made again": repeated,
        "no process there": timeline.away,
        "all else: preparing, compiling, evaluating, saving": rest,
    }
    shown = {name: value for name, value in parts.items() if value or name == "steps that count"}
    bars = markup.bars(
        [f"{name}, {duration(value)}" for name, value in shown.items()],
        [round(value, 1) for value in shown.values()],
        about=f"{run.label}: seconds",
    )
    if len(timeline.starts) == 1:
        return [bars]
    rows = [
        [
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(start.began)),
            f"{start.step:,}",
            f"{start.reached:,}",
            duration(start.ended - start.began),
        ]
        for start in timeline.starts
    ]
    return [
        bars,
        _p(
            f"{len(rows) - 1} restart{'s' * (len(rows) > 2)}, {timeline.repeated:,} steps made "
            "again:"
        ),
        markup.table(["began", "from step", "reached", "for"], rows, numeric={1, 2}),
    ]


def troubles(run: Run) -> list[Html]:
    """Updates that were not made, and what was warned of."""
    skipped = run.train.get("skipped_updates")
    parts = []
    if skipped is not None and (number := int(np.nanmax(skipped, initial=0))):
        more = np.flatnonzero(np.diff(skipped, prepend=0) > 0)
        steps = ", ".join(f"{int(run.train['step'][i]):,}" for i in more[:20])
        parts.append(_p(f"{run.label}: {number:,} updates not made, told of at steps {steps}."))
    texts: dict[tuple[str, str], list[float]] = {}
    for entry in run.timeline.troubles:
        texts.setdefault((entry.level, entry.text), []).append(entry.time)
    if not texts:
        return parts or [_p(f"{run.label}: none.")]
    rows = [
        [
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(times[0])),
            level.lower(),
            f"{len(times):,}",
            text,
        ]
        for (level, text), times in itertools.islice(texts.items(), _TROUBLES)
    ]
    parts.append(markup.table(["first", "level", "times", "what the log says"], rows, numeric={2}))
    if len(texts) > _TROUBLES:
        parts.append(_p(f"and {len(texts) - _TROUBLES:,} others, in lmjax.log"))
    return parts


def mixture(run: Run) -> list[Html]:
    """Tokens that came of each source."""
    last = run.facts.last("train") or {}
    names = run.facts.config.data.source_names
    amounts = [int(last.get(f"tokens/{name}", 0)) for name in names]
    return [markup.bars(list(names), amounts, about=f"{run.label}: tokens seen of each source")]


def curation(run: Run) -> list[Html]:
    """What curation of the raw text kept and dropped: its funnel, and excerpts by rule."""
    parts = []
    for name, ledger in run.facts.ledgers.items():
        title = f"{run.label}: {name}" if name else run.label
        parts += _funnel(title, ledger)
    return parts


def _funnel(title: str, ledger: Mapping[str, Any]) -> list[Html]:
    dropped = ledger.get("dropped")
    if ledger.get("format") != 1 or not isinstance(dropped, dict):
        return []
    left = int(ledger["in"]["documents"])
    names, values = ["raw"], [left]
    by_step = itertools.groupby(dropped.values(), key=lambda rule: rule["step"])
    for step, rules in by_step:
        left -= sum(int(rule["documents"]) for rule in rules)
        names.append(f"after {step}")
        values.append(left)
    share = int(ledger["kept"]["bytes"]) / max(int(ledger["in"]["bytes"]), 1)
    rows = [
        [
            rule,
            str(found["step"]),
            f"{found['documents']:,}",
            _excerpts(found.get("excerpts", ())),
        ]
        for rule, found in dropped.items()
        if found["documents"]
    ]
    header = ["rule", "step", "documents dropped", "examples"]
    return [
        markup.bars(names, values, about=f"{title}: documents left ({share:.1%} of the bytes)"),
        markup.table(header, rows, numeric={2}),
    ]


def _excerpts(found: Sequence[Mapping[str, Any]]) -> Html:
    if not found:
        return Html("")
    shown = [tag("p", _short(str(each["text"])), class_="muted") for each in found[:5]]
    return markup.details(f"{len(shown)} examples", *shown)


def samples(run: Run) -> list[Html]:
    """What the model wrote for the same texts as it learned."""
    by_index: dict[int, list[Mapping[str, Any]]] = {}
    for row in run.samples:
        by_index.setdefault(int(row["index"]), []).append(row)
    parts: list[Html] = []
    for rows in by_index.values():
        first = rows[0]
        parts.append(tag("h3", f"{run.label}: " + _short(str(first.get("prompt", "")), 160)))
        lines = [[f"{row['step']:,}", _short(str(row.get("text", "")))] for row in _spread(rows)]
        if first.get("reference"):
            lines.append(["what stands there", _short(str(first["reference"]))])
        parts.append(markup.table(["step", "the model"], lines))
    return parts


def _spread(rows: Sequence[Any]) -> list[Any]:
    """A few of them: the first, the last, and some between, closer at the beginning."""
    if len(rows) <= _MOMENTS:
        return list(rows)
    places = np.geomspace(1, len(rows), _MOMENTS).round().astype(int) - 1
    return [rows[i] for i in dict.fromkeys(places.tolist())]


def configs(runs: Sequence[Run]) -> list[Html]:
    """In which fields the runs differ, and all fields."""
    values = [
        {name: _value(value) for name, value, _ in fields_lib.leaves(run.facts.config)}
        for run in runs
    ]
    labels, parts = [run.label for run in runs], []
    if len(runs) > 1:
        rows = [
            [tag("code", name), *(each[name] for each in values)]
            for name in values[0]
            if len({each[name] for each in values}) > 1
        ]
        parts.append(
            markup.table(["differs", *labels], rows) if rows else _p("The configs are equal.")
        )
    for run in runs:
        if changes := run.facts.run.changes:
            rows = [[tag("code", c["field"]), _value(c["from"]), _value(c["to"])] for c in changes]
            parts += [
                _p(f"{run.label}: changed when it went on"),
                markup.table(["field", "from", "to"], rows),
            ]
    rows = [[tag("code", name), *(each[name] for each in values)] for name in values[0]]
    parts.append(markup.details("All fields", markup.table(["field", *labels], rows)))
    return parts


def _value(value: Any) -> str:
    return _short(str(value), 200)


def _short(text: str, limit: int = _EXCERPT) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]} ..."


def _p(text: str) -> Html:
    return tag("p", text)
