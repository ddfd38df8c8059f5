"""The page of a report, section by section; what a run has not is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmjax.pages import Page, Section
from lmjax.report import curves, gather, sections
from lmjax.report.gather import Run


def make(workdirs: Sequence[str]) -> bytes:
    """The report of the runs in some workdirs, as one HTML file.

    Args:
      workdirs: local or URLs; runs may be going on there.

    Raises:
      UserError: one holds no run, or one without rows.
      ModuleNotFoundError: plotly is not installed (extra [report]).
    """
    runs = gather.gather(workdirs)
    title = " and ".join(run.label for run in runs)
    return Page(f"lmjax: {title}", _subtitle(runs), list(_sections(runs))).render()


def _subtitle(runs: Sequence[Run]) -> str:
    steps = " and ".join(f"{run.step:,}" for run in runs)
    return f"Report of {'a run' if len(runs) == 1 else f'{len(runs)} runs'}, up to step {steps}."


def _sections(runs: Sequence[Run]) -> Iterator[Section]:
    yield Section("What it is", sections.overview(runs))
    yield Section(
        "Learning",
        "To zoom, drag over a curve (on a phone: + and -), and back by a double click. Where a "
        "point stands for many rows, a band spans the smallest and the largest of them.",
        curves.learning(runs),
    )
    yield Section("Steps that stand out", *sections.spikes(runs))
    yield Section("Steering", curves.steering(runs))
    times = [part for run in runs for part in sections.time_spent(run)]
    yield Section("Speed and time", curves.speed(runs), *times)
    if mixed := [run for run in runs if run.facts.config.data.source_names]:
        parts = [part for run in mixed for part in (*sections.mixture(run), curves.mixture(run))]
        yield Section("Mixture", *parts)
    if curated := [part for run in runs for part in sections.curation(run)]:
        yield Section("Curation", *curated)
    if written := [part for run in runs for part in sections.samples(run)]:
        yield Section("Samples", *written)
    yield Section("Skips and faults", *[part for run in runs for part in sections.troubles(run)])
    yield Section("Config", *sections.configs(runs))
