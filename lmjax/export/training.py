"""The section of a model card on how a model was trained."""

from __future__ import annotations

from typing import Any

from lmjax import objectives
from lmjax.batch import Ids
from lmjax.config import Config, OptimizerConfig, ScheduleConfig
from lmjax.export.facts import Facts
from lmjax.export.markdown import shown, table
from lmjax.objectives.description import percent
from lmjax.train.console import duration


def section(facts: Facts) -> str:
    """Objective, optimizer, schedule, batch, amount, precision, hardware, time."""
    config, train = facts.config, facts.config.train
    lines = [
        *_objective(config),
        ("rows", _rows(config)),
        *([("z-loss", f"{train.z_loss:g}")] if train.z_loss else []),
        ("optimizer", _optimizer(config.optimizer)),
        ("schedule", _schedule(config.schedule)),
        ("batch", f"{train.global_batch_size:,} rows of {config.data.seq_len:,} tokens"),
        ("steps", f"{facts.step:,}" + _planned(facts)),
        *_seen(facts),
        ("dropout", f"{config.model.dropout:g}"),
        ("seed", str(facts.meta.get("seed", train.seed))),
        *_hardware(facts, config),
    ]
    return f"## Training\n\n{table(['', ''], lines)}"


def _objective(config: Config) -> list[tuple[str, str]]:
    trained, held_out = (objectives.describe(config, evaluation=e) for e in (False, True))
    lines = [("objective", f"{trained.name}: {trained.how}")]
    if held_out.how != trained.how:
        lines.append(("on held-out text", held_out.how))
    return lines


_PACKING = {
    "stream": "cut from the stream of all documents",
    "document": "one document each, longer ones cut",
    "pack": "as many whole documents as fit, longer ones cut",
}


def _rows(config: Config) -> str:
    if objectives.is_labelled(config):
        return "one example each"
    data, said = config.data, _PACKING[config.data.packing]
    if data.packing == "document":
        return said
    cross = data.packing == "stream" and data.cross_documents
    if data.packing == "stream" and cross is None:
        ids = Ids(num_ids=config.tokenizer.vocab_size, num_rows=config.model.vocab_size)
        cross = objectives.make(config, ids).joins_documents
    return f"{said}; {'all of a row is one text' if cross else 'no document sees another'}"


_CONSTANTS = {
    "adafactor": (),
    "lion": ("beta1", "beta2"),
    "muon": ("momentum", "beta1", "beta2", "epsilon"),
}


def _optimizer(optimizer: OptimizerConfig) -> str:
    names = _CONSTANTS.get(optimizer.name, ("beta1", "beta2", "epsilon"))
    parts = [f"{name} {getattr(optimizer, name):g}" for name in names]
    clip = "no clipping" if optimizer.clip_norm is None else f"clipped to {optimizer.clip_norm:g}"
    parts += [f"weight decay {optimizer.weight_decay}", f"gradients' norm: {clip}"]
    return shown(f"{optimizer.name}, {', '.join(parts)}; peak rate {optimizer.learning_rate:g}")


def _schedule(schedule: ScheduleConfig) -> str:
    parts = [f"{schedule.name}, {schedule.warmup_steps:,} steps of warm-up"]
    if schedule.name == "rsqrt":
        held = schedule.hold_steps or schedule.warmup_steps
        parts.append(f"peak held until step {held:,}")
    elif schedule.name != "constant":
        final = percent(schedule.final_fraction)
        parts.append(f"down to {final} of the peak at step {schedule.decay_steps:,}")
    if schedule.name == "wsd":
        parts.append(f"in the last {percent(schedule.cooldown_fraction)} of the steps")
    return ", ".join(parts)


def _planned(facts: Facts) -> str:
    planned = facts.config.train.num_steps
    return f" of {planned:,} planned" * (facts.step < planned)


def _seen(facts: Facts) -> list[tuple[str, str]]:
    row = facts.last("train")
    if row is None:
        return []
    late = f", at step {row['step']:,}" * (row["step"] < facts.step)
    lines = [("tokens seen", f"{row['tokens']:,}{late} (without padding)")]
    text = facts.train_text
    if text and not facts.sources and facts.config.model.architecture != "encoder_decoder":
        lines.append(("passes over the text", f"{row['tokens'] / text['num_tokens']:.3g}"))
    return lines


def _hardware(facts: Facts, config: Config) -> list[tuple[str, str]]:
    hardware: dict[str, Any] | None = facts.meta.get("hardware")
    if hardware is None:
        lines = [("hardware", "not recorded"), ("computed in", shown(config.train.dtype))]
    else:
        lines = [
            ("hardware", f"{hardware['num_devices']} x {shown(hardware['device'])}"),
            ("computed in", f"{shown(hardware['dtype'])}, parameters kept in float32"),
        ]
    if facts.seconds:
        time = f"{duration(facts.seconds)}, without compilation, evaluation and saves"
        lines.append(("time in training steps", time))
    return lines
