"""The sections of a model card, each a piece of Markdown made from the facts of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmjax import flops, objectives
from lmjax.config import Config
from lmjax.data.files import BUNDLED
from lmjax.export import curve, recipe, sums
from lmjax.export.facts import Facts, base_name, base_names
from lmjax.export.markdown import code, shown, table
from lmjax.export.snippet import snippet
from lmjax.hf.format import Format
from lmjax.objectives.description import Description


@dataclass(frozen=True)
class Subject:
    """All that a card is made of.

    Attributes:
      facts: of the run.
      fmt: the stock class.
      ids: special ids, by name.
      dtype: of the weights in the folder.
      repo: OWNER/NAME on the Hub; None: not known.
      license: identifier of the Hub; None: the owner has yet to choose.
      sentinels: their ids, first to last.
      names_sentinels: whether the tokenizer calls the first one <extra_id_0>.
      files: names of what the folder holds.
    """

    facts: Facts
    fmt: Format
    ids: Mapping[str, int | None]
    dtype: str
    repo: str | None
    license: str | None
    sentinels: Sequence[int] = ()
    names_sentinels: bool = False
    files: Collection[str] = ()

    @property
    def has_tokenizer(self) -> bool:
        """Whether the folder takes text."""
        return "tokenizer.json" in self.files

    @property
    def objective(self) -> Description:
        """What the objective says of itself."""
        return objectives.describe(self.facts.config)

    @property
    def is_labelled(self) -> bool:
        """Whether it was trained on labelled examples."""
        return objectives.is_labelled(self.facts.config)

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.repo.split("/")[1] if self.repo else self.facts.name


PLACE = "PATH_OF_THIS_FOLDER"

_KINDS = {
    "encoder": "an encoder",
    "decoder": "a decoder",
    "encoder_decoder": "an encoder-decoder",
}
_PURPOSES = {
    "encoder": "It is for features of text and for fine-tuning (classification, tagging, "
    "retrieval). It does not generate text.",
    "decoder": "It is for prompts, for fine-tuning and for scoring how likely a text is.",
    "encoder_decoder": "It is meant to be fine-tuned to tasks that turn one text into another.",
}
# What holds only where all training is known.
_NOT = {
    "encoder": "",
    "decoder": " It was not tuned to follow instructions or to chat.",
    "encoder_decoder": " It was not tuned to any such task.",
}


def head(subject: Subject) -> str:
    """What it is."""
    facts, model = subject.facts, subject.facts.config.model
    size = f"{sum(flops.num_params(model).values()):,} parameters"
    if facts.imported and not facts.is_trained:
        what = (
            f"A published `{subject.fmt.stock_class}` of {size}, imported into lmjax and exported "
            f"again. {_origin(facts)} lmjax has not trained it and has measured nothing."
        )
    else:
        how = "fine-tuned for" if subject.is_labelled else "pre-trained by"
        what = (
            f"A `{subject.fmt.stock_class}` of {size}: {_KINDS[model.architecture]}, {how} "
            f"{subject.objective.name}, with lmjax, a code base for pre-training in JAX. "
            f"{_origin(facts)}"
        )
    return f"# {shown(subject.name)}\n\n{what}"


def _origin(facts: Facts) -> str:
    init_from = facts.config.train.init_from
    if facts.imported:
        what = f"a model of type `{shown(facts.imported['model_type'])}` with the config.json of "
        what += f"SHA-256 `{shown(facts.imported['config_sha256'])}`"
        if not facts.is_trained:
            return f"It was {what}."
        return f"Training went on from {what}; what that was trained on, its files do not say."
    if init_from and not facts.config.train.init_weights:
        return "Training began with random weights, and the tokenizer and shape of another model."
    if init_from:
        moments = " and its optimizer's moments" * facts.config.train.init_optimizer
        name = shown(base_name(init_from))
        return f"Training began with the weights{moments} of another run, {name}."
    return "Training began with random weights."


def use(subject: Subject) -> str:
    """What it is for, and how it is loaded."""
    architecture = subject.facts.config.model.architecture
    objective, is_trained = subject.objective, subject.facts.is_trained
    name = subject.repo or PLACE
    text = snippet(
        architecture,
        subject.fmt.stock_class,
        name,
        subject.ids,
        objective.frame,
        has_tokenizer=subject.has_tokenizer,
        prompts=objective.prompts if is_trained else (),
        sentinels=subject.sentinels,
        names_sentinels=subject.names_sentinels,
        task=objective.task,
    )
    known = subject.facts.imported is None and subject.facts.config.train.init_from is None
    purpose = f"As it is, it {objective.does}. " * is_trained
    if not subject.is_labelled:
        purpose += _PURPOSES[architecture] + _NOT[architecture] * known
    without = "" if subject.has_tokenizer else " The folder holds no tokenizer: it takes ids."
    return (
        f"## Use\n\n{purpose}{without} No code beyond transformers is needed or "
        f"run.\n\n{code('python', text)}"
    )


# Field of a row -> what it is called; content fields only where they say something else.
_MEASURES = (
    ("loss", "loss"),
    ("unigram_loss", "the same of a unigram model"),
    ("content_loss", "content loss"),
    ("content_unigram_loss", "the same of a unigram model"),
    ("bits_per_byte", "bits per byte"),
    ("accuracy", "accuracy"),
)


def results(subject: Subject) -> str:
    """What was measured, number by number as in metrics.jsonl."""
    facts = subject.facts
    rows = {"train": facts.last("train"), "held-out": facts.last("eval")}
    rows = {name: row for name, row in rows.items() if row}
    if not rows:
        return "## Results\n\nNothing was measured."
    lines = [["row of metrics.jsonl", *(f"step {row['step']}" for row in rows.values())]]
    plain = not subject.objective.left_out
    for key, title in _MEASURES:
        if any(key in row for row in rows.values()) and not (plain and "content" in key):
            values = (str(row[key]) if key in row else "" for row in rows.values())
            lines.append([title, *values])
    for name in (name for name in rows.get("held-out", {}) if f"{name}_low" in rows["held-out"]):
        lines.append([f"{name} of the answers", *_with_interval(name, rows)])
    if "eval" in {row["split"] for row in rows.values()}:
        predicted = [f"{row['tokens']:,}" * (row["split"] == "eval") for row in rows.values()]
        lines.append(["predictions" if subject.is_labelled else "tokens predicted", *predicted])
    late = [name for name, row in rows.items() if row["step"] < facts.step]
    parts = [
        f"## Results\n\nOf the checkpoint of step {facts.step:,}. Losses are in nats per "
        f"{'prediction' if subject.is_labelled else 'predicted token'}.",
        table(["", *rows], lines),
        *[f"The {name} row is older than this checkpoint." for name in late],
        _reading(subject, "bits_per_byte" in next(iter(rows.values()))),
    ]
    if curve.FILE in subject.files:
        parts.append(f"![Loss over the steps, train and held-out]({curve.FILE})")
    return "\n\n".join(parts)


def _with_interval(name: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A measure of answers, in the column of the held-out row."""
    row = rows["held-out"]
    said = f"{row[name]:.4g} ({row[f'{name}_low']:.4g} to {row[f'{name}_high']:.4g})"
    return [said * (column == "held-out") for column in rows]


def _reading(subject: Subject, has_bits: bool) -> str:
    if subject.is_labelled:
        return (
            "A unigram model knows the frequencies of what is to be predicted, and nothing of the "
            "text. In brackets are 95 % intervals of a bootstrap over the held-out examples. The "
            "train column is the mean over the steps since the row before."
        )
    left_out = subject.objective.left_out
    content = f"Content loss leaves out {left_out}. " * bool(left_out)
    bits = "Bits per byte of UTF-8 compare models of different tokenizers. " * has_bits
    rounded = (
        "They were measured with float32 parameters; those in this folder are rounded to "
        f"{subject.dtype}."
    ) * (subject.dtype != "float32")
    return (
        "A unigram model knows the frequencies of the tokens it has to predict and no context: "
        "what is below it, the model has learned from context. "
        f"{content}"
        "Accuracy is the share of predictions with the right token on top. The train column is "
        f"the mean over the steps since the row before. {bits}{rounded}"
    ).rstrip()


def data(subject: Subject) -> str:
    """What it was trained and measured on."""
    facts, config = subject.facts, subject.facts.config
    lines = [("text", _texts(config))]
    if facts.num_inputs and facts.num_inputs > 1:
        lines.append(("files of text", f"{facts.num_inputs:,}"))
    if config.data.eval_path:
        lines.append(("held-out text", _names(config.data.eval_path)))
    for title, split in (("trained on", facts.train_text), ("held out", facts.eval_text)):
        if split:
            lines.append((title, _amount(split)))
    for title, side in (("trained on", "train"), ("held out", "eval")):
        if number := facts.meta.get("examples", {}).get(side):
            lines.append((title, f"{number:,} labelled examples"))
    if facts.train_text and facts.eval_text and not config.data.eval_path:
        both = [split["num_documents"] for split in (facts.train_text, facts.eval_text)]
        share = f"{both[1] / sum(both):.2%} of the documents, chosen by the hash of their text"
        lines.append(("held-out share", share))
    kind = facts.tokenizer.get("model_type") or facts.tokenizer["type"]
    lines.append(("tokenizer", f"{shown(kind)}, {facts.tokenizer['vocab_size']:,} ids"))
    lines.append(("rows of the embedding", f"{config.model.vocab_size:,}"))
    parts = ["## Data", table(["", ""], lines)]
    if facts.sources:
        parts += _mixture(facts)
    if facts.train_text is None:
        parts.append("Where this card was made the prepared text was not, so its size is left out.")
    if facts.ledger:
        counts = [(shown(name), f"{number:,}") for name, number in facts.ledger.items()]
        parts += ["What the curation of the text counted:", table(["", ""], counts)]
    return "\n\n".join(parts)


def _mixture(facts: Facts) -> list[str]:
    """What was mixed in which shares, and how well each part is predicted."""
    train, held_out = facts.last("train") or {}, facts.last("eval") or {}
    fields = ("", "share of the rows", "passes", "trained on", "held out", "held-out loss")
    lines = [
        (
            shown(text.name),
            "" if text.share is None else f"{text.share:.4%}",
            f"{train[key]:.3g}" if (key := f"epochs/{text.name}") in train else "",
            _amount(text.train) if text.train else "",
            _amount(text.held_out) if text.held_out else "",
            str(held_out.get(f"loss/{text.name}", "")),
        )
        for text in facts.sources
    ]
    data = facts.config.data
    weights = "weights" if data.weights else "numbers of tokens"
    power = "" if data.temperature == 1 else f" to the power of 1 / {data.temperature:g}"
    said = f"Shares are in proportion to the sources' {weights}{power}; each has its own passes."
    return [table(fields, lines), said]


def _texts(config: Config) -> str:
    """What a run was trained on, by name."""
    if not config.data.sources:
        return _names(config.data.path)
    return ", ".join(f"{shown(name)} ({_names(path)})" for name, path in config.data.sources)


def _names(path: str) -> str:
    return shown(base_names(path).removeprefix(BUNDLED))


def _amount(split: Mapping[str, Any]) -> str:
    return (
        f"{split['num_documents']:,} documents, {split['num_tokens']:,} tokens, "
        f"{split['num_bytes']:,} bytes"
    )


def limits(subject: Subject) -> str:
    """What not to expect."""
    facts, config = subject.facts, subject.facts.config
    lines = []
    if row := facts.last("train"):
        lines.append(f"It has seen {row['tokens']:,} tokens, and knows what is in them at most.")
    bundled = all(path.startswith(BUNDLED) for path in config.data.paths)
    lines += [
        "The text is the English corpus that comes with lmjax."
        if bundled
        else "Its languages are those of its text; the files of the run do not name them.",
        "lmjax does nothing for safety: it may repeat whatever its text holds, be it wrong, "
        "offensive or personal.",
        f"Rows had {config.data.seq_len:,} tokens; longer inputs were not measured.",
        "Beyond the numbers above nothing was measured: "
        + "no downstream task, " * (not subject.is_labelled)
        + "no other kind of text, no bias, no memorisation.",
    ]
    if not config.data.eval_path:
        what = "examples" if subject.is_labelled else "documents"
        lines.append(f"Held-out {what} come from the same sources as those trained on.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def licence(subject: Subject) -> str:
    """Under which terms, or that there are none yet."""
    if subject.license:
        return f"## Licence\n\n{shown(subject.license)}, as its owner has declared."
    return (
        "## Licence\n\nNone is declared: the owner of this model has to choose one. The terms of "
        "the text bear on that."
    )


def reproduce(subject: Subject) -> str:
    """The command, the versions, the files."""
    facts = subject.facts
    versions = facts.meta.get("versions", {})
    made = ", ".join(f"{shown(name)} {shown(version)}" for name, version in versions.items())
    changed = recipe.changes(facts.run)
    parts = ["## Reproduce", code("bash", recipe.command(facts.config))]
    parts.append(
        f"[{recipe.FILE}]({recipe.FILE}) holds every field of the run; paths are cut to their last "
        "part, capitals in the command stand for what has to be given."
    )
    if sha256 := facts.meta.get("data_sha256"):
        parts.append(f"The prepared text's manifest has SHA-256 `{shown(sha256)}`.")
    hashes = [f"{shown(t.name)} `{shown(t.sha256)}`" for t in facts.sources if t.sha256]
    if hashes:
        parts.append(f"Manifests of the prepared texts have SHA-256 {', '.join(hashes)}.")
    if changed:
        parts.append(f"Changed on the way: {shown('; '.join(changed))}.")
    if made:
        parts.append(f"Made with {made}.")
    return "\n\n".join(parts)


def files() -> str:
    """How the folder is checked."""
    return f"## Files\n\n{code('bash', f'sha256sum -c {sums.FILE}')}"
