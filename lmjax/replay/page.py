"""The page of a replayed step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lmjax.opening import Reading
from lmjax.pages import Page, Section, charts, markup
from lmjax.pages.markup import Html, tag
from lmjax.replay import compare, norms, tokens
from lmjax.replay.blame import Blamed
from lmjax.replay.norms import Norms
from lmjax.replay.replay import LOOKED_BACK, Replayed
from lmjax.train.shown import Spelling

_DOCUMENTS = 20


def render(run: Reading, found: Replayed, blamed: Sequence[Blamed]) -> bytes:
    """One self-contained HTML file.

    Args:
      run: whose step it is.
      found: from `replay.replay`.
      blamed: from `blame.documents`.
    """
    tokenizer, batches = run.data.stores.tokenizer, run.data.train_batches(run.program)
    texts = tokens.Texts(batches, tokenizer, run.ids, run.data.names)
    sections = [
        Section("What happened", *_headline(run, found)),
        Section("Worst documents", *_documents(run, blamed)),
        Section("Losses and gradients before it", *_curves(found)),
        Section("Norms by layer", *_norms(run, found)),
        Section("The batch", *texts.worst(found.batch, found.explained.nats)),
    ]
    title = f"Step {found.step.number:,} of {run.path.rstrip('/').rsplit('/', 1)[-1]}"
    began = f"from the checkpoint of step {found.start:,}" if found.start else "from the beginning"
    subtitle = f"{len(found.steps):,} steps replayed {began}"
    return Page(title, subtitle, sections, style=tokens.STYLE).render()


def origin(run: Reading, source: int, document: int) -> str:
    """Where a document is from: source of a mixture, file and record."""
    file, record = run.data.train_rows[source].store.origin(document)
    of = f"{run.data.names[source]}: " if run.data.names else ""
    return f"{of}{file}:{record}"


def origins(run: Reading, blamed: Blamed) -> str:
    """The same of all documents that are blamed together, up to three of them."""
    shown = [origin(run, blamed.source, document) for document in blamed.documents[:3]]
    more = len(blamed.documents) - len(shown)
    return ", ".join(shown) + f" and {more} more" * bool(more)


def excerpt(run: Reading, blamed: Blamed, length: int) -> str:
    """Its first characters in the batch, in one line."""
    text = "".join(Spelling(run.data.stores.tokenizer, run.ids)(blamed.excerpt))
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def verdict(found: Replayed) -> str:
    """Whether the recorded rows came out again, in one line."""
    steps = found.compared
    if found.differences:
        return compare.told(found.differences, found.reasons)
    if not steps:
        return "no row of metrics was recorded between the checkpoint and this step"
    which = f"row of step {steps[0]}" if len(steps) == 1 else f"{len(steps)} rows up to {steps[-1]}"
    return f"as recorded, bit for bit: {which}"


def _headline(run: Reading, found: Replayed) -> list[Html]:
    step, own = found.step, {row["step"]: row for row in found.recorded}
    recorded = own.get(step.number)
    facts = [
        ("loss of the step", _number(step.loss, "nats per prediction")),
        ("gradient norm", _number(step.grad_norm, "before clipping")),
        ("update", "made" if step.made else "not made: not finite, or a spike"),
        ("compared with metrics.jsonl", verdict(found)),
    ]
    if recorded is not None:
        window = run.config.log.every
        what = "of this step" if window == 1 else "mean since the row before it"
        facts.insert(1, ("recorded", _number(recorded["loss"], what)))
    parts = [markup.facts(facts)]
    if found.differences:
        parts.insert(0, tag("p", compare.told(found.differences, found.reasons), class_="bad"))
        cells = [
            [str(d.step), d.field, str(d.recorded), str(d.replayed)] for d in found.differences[:50]
        ]
        header = ("step", "field", "recorded", "replayed")
        parts.append(markup.details("What differs", markup.table(header, cells, numeric=(0,))))
    if recorded is None:
        parts.append(_around(found))
    return parts


def _around(found: Replayed) -> Html:
    """The recorded rows before and behind a step that has none."""
    number = found.step.number
    before = [row for row in found.recorded if row["step"] < number][-1:]
    behind = [row for row in found.recorded if row["step"] > number][:1]
    if not before + behind:
        return tag("p", "Nothing was recorded around it.")
    cells = [
        [f"{row['step']:,}", f"{row['loss']:.4f}", f"{row.get('grad_norm', math.nan):.4g}"]
        for row in before + behind
    ]
    said = tag("p", "The step has no row of its own; those around it hold means of some steps:")
    header = ("step", "loss", "gradient norm of that step")
    return markup.join([said, markup.table(header, cells, numeric=(0, 1, 2))])


def _number(value: float, what: str) -> str:
    return f"{value:.6g} ({what})"


def _documents(run: Reading, blamed: Sequence[Blamed]) -> list[Html]:
    cells = [
        [
            markup.join(
                [
                    tag("code", origins(run, each)),
                    tag("div", excerpt(run, each, 200), class_="excerpt"),
                ]
            ),
            f"{each.loss:.3f}",
            f"{each.tokens:,}",
            f"{each.lift:+.3f}",
        ]
        for each in blamed[:_DOCUMENTS]
    ]
    header = ("file:record", "nats per prediction", "predictions", "lifts the loss by")
    said = (
        f"{min(_DOCUMENTS, len(blamed))} of the {len(blamed)} documents of this batch, those first "
        "without which the loss of the step would be lowest. Records count from 0."
    )
    return [tag("p", said), markup.table(header, cells, numeric=(1, 2, 3))]


def _curves(found: Replayed) -> list[Html]:
    x = [step.number for step in found.steps]
    mark, few = [(found.step.number, f"step {found.step.number}")], len(x) < 60
    return [
        charts.Chart(
            name,
            [charts.Line("", x, values, markers=few)],
            y=unit,
            marks=mark,
            about=f"Of the {len(x)} replayed steps, {x[0]} to {x[-1]}.",
        ).html()
        for name, unit, values in (
            ("Loss", "nats per prediction", [step.loss for step in found.steps]),
            ("Gradient norm", "before clipping", [step.grad_norm for step in found.steps]),
        )
    ]


def _norms(run: Reading, found: Replayed) -> list[Html]:
    rows = norms.of_step(run.config.model, found.explained, found.before)
    layers, whole = norms.by_layer(rows), norms.total([row.gradient for row in rows])
    against = (
        "Beside the gradient of each part stands how many times its median in the replayed steps "
        f"before it is ({len(found.before)}); more than {norms.UNUSUAL:g} is marked."
        if found.before
        else "There is no step before it in this replay to compare with; an older one has up to "
        f"{LOOKED_BACK}."
    )
    said = (
        f"The gradient norm of all parts together is {whole:.6g}, that of the step "
        f"{found.step.grad_norm:.6g}. Layers count from 0. {against}"
    )
    unusual = [f"{row.layer} {row.part} ({_times(row)})" for row in rows if row.is_unusual]
    parts = [tag("p", said)]
    if unusual:
        shown = ", ".join(unusual[:8]) + f" and {len(unusual) - 8} more" * (len(unusual) > 8)
        parts.append(tag("p", f"Unusual: {shown}.", class_="bad"))
    elif found.before:
        parts.append(tag("p", "None is unusual."))
    finite = [row.gradient if math.isfinite(row.gradient) else 0.0 for row in layers]
    names = [row.layer + " (not finite)" * (row.gradient not in finite) for row in layers]
    picture = markup.bars(names, finite, x="gradient norm", about="Gradient norm of each layer")
    return [*parts, picture, markup.details("All parts", _table(rows))]


def _table(rows: Sequence[Norms]) -> Html:
    cells = [
        [
            row.layer,
            row.part,
            _marked(f"{row.gradient:.4g}", row),
            _marked(_times(row), row),
            f"{row.parameter:.4g}",
            f"{row.update:.4g}",
            f"{row.update / row.parameter:.2%}" if row.parameter else "",
        ]
        for row in rows
    ]
    header = ("layer", "part", "gradient", "of usual", "parameter", "update", "update of parameter")
    return markup.table(header, cells, numeric=(2, 3, 4, 5, 6))


def _times(row: Norms) -> str:
    if not math.isfinite(row.gradient):
        return "not finite"
    return "" if row.times is None else f"{row.times:.2f}×"


def _marked(text: str, row: Norms) -> str:
    return tag("span", text, class_="bad") if row.is_unusual else text


def worst_lines(run: Reading, blamed: Sequence[Blamed], number: int = 3) -> list[str]:
    """What the console says of the worst documents."""
    return [
        f"  {each.loss:.3f} nats x {each.tokens} predictions ({each.lift:+.3f} on the loss)  "
        f"{origins(run, each)}  {excerpt(run, each, 60)!r}"
        for each in blamed[:number]
    ]
