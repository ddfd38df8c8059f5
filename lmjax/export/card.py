"""README.md of an exported folder: what is known of the model, as the Hub shows it.

Every sentence comes from the run's own files; what they do not say is left out or named as unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lmjax import paths
from lmjax.config import Config
from lmjax.data.files import BUNDLED
from lmjax.export import curve, recipe, sections, training
from lmjax.export.facts import base_names
from lmjax.export.markdown import plain
from lmjax.export.sections import Subject

FILE = "README.md"

PIPELINES = {
    "encoder": "fill-mask",
    "decoder": "text-generation",
    "encoder_decoder": "text2text-generation",
}
_METRICS = {
    "loss": ("loss", "Loss on held-out text, nats per predicted token"),
    "content_loss": ("loss", "Content loss on held-out text, nats per predicted token"),
    "bits_per_byte": ("bits_per_byte", "Bits per byte of held-out text"),
    "accuracy": ("accuracy", "Share of right predictions on held-out text"),
}


def write(subject: Subject, folder: str) -> list[str]:
    """Writes the card, its picture and the run's config into a local folder.

    Returns:
      What the card lacks, for the user to know.
    """
    facts, lacks = subject.facts, []
    if facts.is_trained:
        recipe.write(facts.run, folder)
        if facts.rows and not curve.draw(facts.rows, folder):
            lacks.append("the loss curve (pip install 'lmjax[card]')")
    subject = dataclasses.replace(subject, files=paths.files_below(folder))
    if subject.license is None:
        lacks.append("a licence (--license=apache-2.0, or another one)")
    (Path(folder) / FILE).write_text(str(make(subject)), encoding="utf-8")
    return lacks


def make(subject: Subject) -> ModelCard:
    """The card: metadata and Markdown."""
    parts = [sections.head(subject), sections.use(subject)]
    if subject.facts.is_trained:
        parts += [
            sections.results(subject),
            training.section(subject.facts),
            sections.data(subject),
            sections.limits(subject),
        ]
    parts.append(sections.licence(subject))
    if subject.facts.is_trained:
        parts.append(sections.reproduce(subject))
    body = "\n\n".join([*parts, sections.files()])
    return ModelCard(f"---\n{_metadata(subject).to_yaml()}\n---\n\n{body}\n")


def _metadata(subject: Subject) -> ModelCardData:
    config, model_type = subject.facts.config, subject.fmt.model_type
    results = _results(subject)
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=_task(subject),
        tags=["lmjax", "fine-tuning" if subject.is_labelled else "pretraining", model_type],
        language="en" if subject.facts.is_trained and _is_english(config) else None,
        license=plain(subject.license) if subject.license else None,
        model_name=plain(subject.name) if results else None,
        eval_results=results or None,
    )


def _task(subject: Subject) -> str:
    """What the Hub calls what the model is for."""
    return subject.objective.task or PIPELINES[subject.facts.config.model.architecture]


def _is_english(config: Config) -> bool:
    return all(path.startswith(BUNDLED) for path in config.data.paths)


def _judged(row: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The measures of answers in a row: (kind, name) by field."""
    names = (name for name in row if f"{name}_low" in row)
    return {name: (name.lower(), f"{name} on held-out examples") for name in names}


def _results(subject: Subject) -> list[EvalResult]:
    """The held-out row, in the words of the Hub."""
    facts, config = subject.facts, subject.facts.config
    row = facts.last("eval") or {}
    path = config.data.eval_path or config.data.path
    names = () if config.data.eval_path else config.data.source_names
    text = plain(", ".join(names) or base_names(path).removeprefix(BUNDLED))
    return [
        EvalResult(
            task_type=_task(subject),
            dataset_type="text",
            dataset_name=text if config.data.eval_path else f"held-out part of {text}",
            metric_type=kind,
            metric_name=f"{name}, step {row['step']}",
            metric_value=row[key],
        )
        for key, (kind, name) in (_METRICS | _judged(row)).items()
        if key in row and not (key == "content_loss" and row[key] == row["loss"])
    ]
