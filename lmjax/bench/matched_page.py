"""The page of a matched comparison, made of its numbers alone: one table, what loses, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmjax.bench import intervals, report
from lmjax.bench.matched import SIZES, VARIANTS
from lmjax.train.console import count

Found = Mapping[str, Any]

BEGIN, END = "<!-- matched: begin -->", "<!-- matched: end -->"

NAMES = {"encoder": "encoder", "decoder": "decoder", "encoder_decoder": "encoder-decoder"}
_MEASURES = {
    "accuracy": "accuracy, %",
    "f1": "F1",
    "exact_match": "exact match, %",
    "rougeL": "ROUGE-L",
    "chrf": "chrF",
    "bleu": "BLEU",
}
_TASKS = {"choices": "which text goes on?"}
_DASH = "—"


def markdown(found: Found, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The section, between its two marks.

    Args:
      found: of `matched_results.collect`.
      pictures: (path, what it shows) of each.
    """
    parts = [
        BEGIN,
        "\n".join(_made(found)),
        "\n".join(_table(found)),
        _below(found),
        "\n".join(_losses(found)),
        "### Sizes",
        "\n".join(_sizes(found)),
        "\n".join(_fits(found)),
        *(f"![{about}]({path})" for path, about in pictures),
        report.measured_on(found),
        END,
    ]
    return "\n\n".join(part for part in parts if part)


def put(section: str, page: str) -> str:
    """A page with the section in the place of the one that it has; "": the section alone."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{section}{after}" if mark and end else f"{section}\n"


def runs_of(found: Found, variant: str, size: str | None = None) -> list[Mapping[str, Any]]:
    """Pre-trainings of a variant; of the main size unless another is named."""
    size = size or found["main"]
    same = lambda run: (run["variant"], run["size"]) == (variant, size)
    return [run for run in found["pretrained"] if same(run)]


def _made(found: Found) -> Iterator[str]:
    some = next(run for run in found["pretrained"] if run["size"] == found["main"])
    sizes = [runs_of(found, v)[0]["non_embedding"] for v in VARIANTS if runs_of(found, v)]
    apart = max(sizes) / min(sizes) - 1
    yield (
        f"An encoder, a decoder and an encoder-decoder of one size ({found['main']}: width "
        f"{some['width']}) read the same {count(some['tokens'])} tokens in {some['steps']:,} "
        f"steps, with the same tokenizer of {found['vocab_size']:,} ids, with "
        f"{_seeds(found)}. Equal are the parameters beside the embedding, which "
        f"all tie to their output: they are {100 * apart:.1f} % apart. A number is the mean over "
        "the seeds with its interval of 95 %: over seeds and, where there are test examples, over "
        "those, too. The best of a row is bold where it is ahead of all others beyond chance."
    )


def _seeds(found: Found) -> str:
    """How many of the main size are done."""
    numbers = [len(runs) for v in VARIANTS if (runs := runs_of(found, v))]
    if min(numbers) == max(numbers):
        return f"{numbers[0]} seeds each" if numbers[0] > 1 else "one seed each"
    return f"{min(numbers)} to {max(numbers)} seeds each"


def _table(found: Found) -> Iterator[str]:
    header = ["", *(NAMES[v] for v in VARIANTS), "without a network"]
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for cells in (*_pretraining(found), *_tasks(found)):
        yield f"| {' | '.join(cells)} |"


def _pretraining(found: Found) -> Iterator[list[str]]:
    of = {variant: runs_of(found, variant) for variant in VARIANTS}
    each = lambda make: [make(of[v]) if of[v] else _DASH for v in VARIANTS]
    yield ["parameters", *each(lambda runs: count(runs[0]["parameters"])), ""]
    beside = "of them beside the embedding"
    yield [beside, *each(lambda runs: f"{runs[0]['non_embedding']:,}"), ""]
    yield ["objective", *each(lambda runs: f"`{runs[0]['objective']}`"), ""]
    optimizer = lambda runs: f"{runs[0]['optimizer']}, {runs[0]['learning_rate']:g}"
    yield ["optimizer, peak rate", *each(optimizer), ""]
    yield ["FLOPs of the model", *each(lambda runs: count(runs[0]["flops"])), ""]

    def loss(runs: Sequence[Mapping[str, Any]]) -> str:
        losses = intervals.of_mean([run["content_loss"] for run in runs])
        unigram = sum(run["content_unigram_loss"] for run in runs) / len(runs)
        return f"{_interval(vars(losses), 2)}; unigram {unigram:.2f}"

    yield ["held-out content loss, nats", *each(loss), ""]

    def bits(runs: Sequence[Mapping[str, Any]]) -> str:
        values = [run["bits_per_byte"] for run in runs]
        if None in values:
            return _DASH
        return _interval(vars(intervals.of_mean(values)), 3)

    yield ["bits per byte", *each(bits), ""]


def _tasks(found: Found) -> Iterator[list[str]]:
    for row in found["rows"]:
        cells = [_name(row)]
        for variant in VARIANTS:
            cell = _interval(row["of"][variant], 1) if variant in row["of"] else _DASH
            cells.append(f"**{cell}**" if variant == row["best"] and _is_ahead(row) else cell)
        plain = row["plain"]
        cells.append(f"{plain['value']:.1f} ({plain['name']})" if plain else "")
        yield cells


def _name(row: Mapping[str, Any]) -> str:
    measure = _MEASURES.get(row["measure"], row["measure"])
    return f"{_TASKS.get(row['task'], row['task'])}, {measure}"


def _interval(one: Mapping[str, Any], digits: int) -> str:
    low, high = one["low"], one["high"]
    if low is None or low != low:
        return f"{one['value']:.{digits}f}"
    return f"{one['value']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _beyond(lead: Mapping[str, Any]) -> bool:
    return lead["low"] is not None and intervals.Interval(**lead).beyond_chance


def _is_ahead(row: Mapping[str, Any]) -> bool:
    return bool(row["leads"]) and all(map(_beyond, row["leads"].values()))


def _below(found: Found) -> str:
    """What dashes mean, and how many examples there were."""
    by_why: dict[str, list[str]] = {}
    for task, why in found["missing"].items():
        by_why.setdefault(why, []).append(task)
    dashes = [f"{' and '.join(tasks)}: {why}" for why, tasks in by_why.items()]
    dashes.append("bits per byte: only a decoder's loss is the likelihood of the text")
    sizes = [
        f"{task} {numbers['train']:,} and {numbers['test']:,}"
        for task, numbers in found["examples"].items()
    ]
    chosen = [row for row in found["rows"] if row["task"] == "choices"]
    asked = [f"{row['examples']:,} choices, chance {row['chance']:.0f} %" for row in chosen]
    said = ["Losses of different objectives do not compare, so none of them is best."]
    said.append(f"A dash: {'; '.join(dashes)}.")
    if sizes or asked:
        said.append(f"Examples to train on and to test: {'; '.join([*sizes, *asked])}.")
    return " ".join(said)


def _losses(found: Found) -> Iterator[str]:
    """In words, where each variant loses."""
    for variant in VARIANTS:
        said = []
        for row in found["rows"]:
            lead = row["leads"].get(variant)
            if lead is not None and _beyond(lead):
                said.append(f"{_name(row)}: by {_interval(lead, 1)} to the {NAMES[row['best']]}")
            elif lead is not None:
                said.append(
                    f"{_name(row)}: behind the {NAMES[row['best']]} by {lead['value']:.1f}, "
                    "not beyond chance"
                )
            plain, mine = row["plain"], row["of"].get(variant)
            if plain and mine and mine["value"] < plain["value"]:
                said.append(f"{_name(row)}: below what needs no network ({plain['name']})")
        if said:
            yield f"- **Where the {NAMES[variant]} loses.** {'; '.join(said)}."


def _sizes(found: Found) -> Iterator[str]:
    sizes = [size for size in SIZES if any(runs_of(found, v, size) for v in VARIANTS)]
    header = ["", *(f"{NAMES[v]}: parameters beside the embedding, loss" for v in VARIANTS)]
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for size in sizes:
        cells = [size]
        for variant in VARIANTS:
            runs = runs_of(found, variant, size)
            losses = ", ".join(f"{run['content_loss']:.3f}" for run in runs)
            cells.append(f"{runs[0]['non_embedding']:,}: {losses}" if runs else _DASH)
        yield f"| {' | '.join(cells)} |"


def fit(found: Found, variant: str) -> intervals.PowerLaw | None:
    """The power law of a variant's held-out content loss in its parameters."""
    runs = [run for run in found["pretrained"] if run["variant"] == variant]
    sizes = [run["non_embedding"] for run in runs]
    return intervals.power_law(sizes, [run["content_loss"] for run in runs])


def _fits(found: Found) -> Iterator[str]:
    said = []
    for variant in VARIANTS:
        law = fit(found, variant)
        if law is None:
            continue
        shown = _interval(vars(law.exponent), 3)
        unsure = "" if law.exponent.low > 0 else ", which may be none"
        said.append(f"{NAMES[variant]} {shown}{unsure}")
    if said:
        yield (
            "At equally many tokens the held-out content loss falls with a power of the "
            f"parameters beside the embedding; exponents: {'; '.join(said)}. It is a straight line "
            "through the logarithms of a few small models: enough to say that larger ones do "
            "better, not how far that goes."
        )


def write(found: Found, file: Path, pictures: Sequence[tuple[str, str]]) -> None:
    """Writes the section to a Markdown file, in its place where the file has one."""
    page = file.read_text(encoding="utf-8") if file.exists() else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(put(markdown(found, pictures), page), encoding="utf-8")
