"""The matched comparison: an encoder, a decoder and an encoder-decoder of one size on one text.

Tokenizer, store, windows and their number are the same, and so, nearly, are the parameters beside
the embedding; `configs/compare` has the recipes, SIZES the widths. Each is pre-trained with several
seeds, asked without any training which text goes on, and fine-tuned on each task that has an
objective for it. All of it is a list of jobs, ordinary command lines, in the order of their worth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmjax.bench import forms
from lmjax.bench.jobs import Job

VOCAB_SIZE = 4096
STEPS = 1500
EVAL_BATCHES = 128  # of the held-out text, the same for every evaluation of a variant
EVALUATIONS = 6  # of a pre-training, for its curve
CHOICES = 1000
_CONTEXT_WORDS, _CHOICE_WORDS = 32, 12

VARIANTS = ("encoder", "decoder", "encoder_decoder")

# Width and heads of each size; the inner width of the MLP makes up for what else differs.
_WIDTHS = {"tiny": (64, 2), "mini": (96, 3), "small": (128, 4)}
_MLP = {
    "encoder": {"tiny": 192, "mini": 288, "small": 384},
    "decoder": {"tiny": 192, "mini": 288, "small": 384},
    "encoder_decoder": {"tiny": 152, "mini": 232, "small": 308},
}
SIZES = tuple(_WIDTHS)


def shape(variant: str, size: str) -> dict[str, int]:
    """The fields of `model` that a size sets."""
    width, heads = _WIDTHS[size]
    found = {"hidden_size": width, "num_heads": heads, "mlp_size": _MLP[variant][size]}
    return found | ({"num_kv_heads": heads} if variant == "decoder" else {})


@dataclass(frozen=True)
class Task:
    """Something to fine-tune on.

    Attributes:
      objectives: variant -> the objective that it learns it by.
      fields: config fields of all of them.
      writes: config fields of those that write their answer.
      tests: how many examples are answered; None: all.
      missing: why a variant is not in `objectives`.
    """

    objectives: Mapping[str, str]
    fields: Mapping[str, object]
    writes: Mapping[str, object]
    tests: int | None
    missing: str = ""


_WRITERS = {"decoder": "completion", "encoder_decoder": "seq2seq"}

TASKS = {
    "sentiment": Task(
        {"encoder": "sequence_classification", **_WRITERS},
        {"data.seq_len": 64, "train.num_steps": 300, "train.global_batch_size": 32},
        {"objective.target_length": 8},
        None,
    ),
    "questions": Task(
        {"encoder": "span_extraction", **_WRITERS},
        {"data.seq_len": 192, "train.num_steps": 400, "train.global_batch_size": 16},
        {"objective.target_length": 64},
        None,
    ),
    "entities": Task(
        {"encoder": "token_classification"},
        {"data.seq_len": 64, "train.num_steps": 300, "train.global_batch_size": 32},
        {},
        None,
        "a tag for each word is an encoder's head; those that write have none",
    ),
    "summaries": Task(
        _WRITERS,
        {"data.seq_len": 144, "train.num_steps": 400, "train.global_batch_size": 16},
        {"objective.target_length": 24},
        300,
        "an encoder does not write",
    ),
    "translation": Task(
        _WRITERS,
        {"data.seq_len": 56, "train.num_steps": 500, "train.global_batch_size": 32},
        {"objective.target_length": 64},
        300,
        "an encoder does not write",
    ),
}

# Peak rates of fine-tuning; docs/results.md says how they were chosen.
_RATES = {"encoder": 1e-3, "decoder": 1e-3, "encoder_decoder": 1e-3}


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
      workdir: where everything goes.
      data, held_out: text to train on, and text that nobody trains on: files, globs, URLs.
      labelled: folder of TASK.train.jsonl and TASK.test.jsonl; None: nothing is fine-tuned.
      seeds: of the main size.
      main: the size that is compared in all.
      sizes: of which one seed each is pre-trained, beside it.
      steps: of each pre-training.
      vocab_size: of the tokenizer.
      choices: how many are asked.
      shorten: fine-tuning takes this part of its steps; for tests.
    """

    workdir: Path
    data: str
    held_out: str
    labelled: Path | None
    seeds: Sequence[int] = (0, 1, 2)
    main: str = "mini"
    sizes: Sequence[str] = SIZES
    steps: int = STEPS
    vocab_size: int = VOCAB_SIZE
    choices: int = CHOICES
    shorten: float = 1.0

    def tasks(self) -> list[str]:
        """Those whose files are in the folder."""
        if self.labelled is None:
            return []
        return [task for task in TASKS if self.examples(task, "train").exists()]

    def examples(self, task: str, part: str) -> Path:
        """File of a task's examples as they were given; `part` is "train" or "test"."""
        return self.labelled / f"{task}.{part}.jsonl"

    def lines(self, task: str, objective: str, part: str) -> Path:
        """The same in the form of an objective."""
        return self.workdir / "labelled" / f"{task}.{objective}.{part}.jsonl"

    def pretrained(self, size: str, variant: str, seed: int) -> Path:
        """Workdir of a pre-training."""
        return self.workdir / "pretrained" / f"{size}_{variant}_{seed}"

    def chosen(self, variant: str, seed: int) -> Path:
        """What zero-shot choices came to."""
        return self.workdir / "choices" / f"{variant}_{seed}.json"

    def finetuned(self, task: str, variant: str, seed: int) -> Path:
        """Workdir of a fine-tuning."""
        return self.workdir / "finetuned" / f"{task}_{variant}_{seed}"

    def prepare(self) -> dict[str, dict[str, int]]:
        """Writes the examples in all forms; task -> how many to train on and to test."""
        (self.workdir / "choices").mkdir(parents=True, exist_ok=True)
        counts: dict[str, dict[str, int]] = {}
        for task in self.tasks():
            for objective in set(TASKS[task].objectives.values()):
                for part, limit in (("train", None), ("test", TASKS[task].tests)):
                    source, target = self.examples(task, part), self.lines(task, objective, part)
                    number = forms.write(task, objective, source, target, limit)
                    counts.setdefault(task, {})[part] = number
        return counts

    def jobs(self) -> list[Job]:
        """Everything, what is worth most first."""
        return [*self._text(), *self._main(), *self._choices(), *self._finetune(), *self._ladder()]

    def _text(self) -> Iterator[Job]:
        tokenizer, choices = self.workdir / "tokenizer", self.workdir / "choices.jsonl"
        size = f"--vocab_size={self.vocab_size}"
        yield _tool("tokenizer", "train_tokenizer", f"--input={self.data}", tokenizer, size)
        for name, text in (("store", self.data), ("held_out", self.held_out)):
            more = (f"--tokenizer={tokenizer}", "--eval_fraction=0")
            folder = self.workdir / name
            yield _tool(
                name, "prepare_data", f"--input={text}", folder, *more, needs=("tokenizer",)
            )
        words = (f"--context_words={_CONTEXT_WORDS}", f"--choice_words={_CHOICE_WORDS}")
        number = f"--num_items={self.choices}"
        yield _tool("choices", "make_choices", f"--input={self.held_out}", choices, number, *words)

    def _main(self) -> Iterator[Job]:
        for seed in self.seeds:
            for variant in reversed(VARIANTS):  # the slowest first
                yield self._pretrain(self.main, variant, seed)

    def _ladder(self) -> Iterator[Job]:
        for size in self.sizes:
            if size != self.main:
                for variant in VARIANTS:
                    yield self._pretrain(size, variant, self.seeds[0])

    def _pretrain(self, size: str, variant: str, seed: int) -> Job:
        fields: dict[str, object] = {
            "data.path": self.workdir / "store",
            "data.eval_path": self.workdir / "held_out",
            "tokenizer.vocab_size": self.vocab_size,
            "train.seed": seed,
        }
        fields |= {f"model.{name}": value for name, value in shape(variant, size).items()}
        fields |= {
            "train.num_steps": self.steps,
            "schedule.decay_steps": self.steps,  # fixed: a run of other steps is not gone on with
            "schedule.warmup_steps": max(1, self.steps // 15),
            "eval.every": max(1, self.steps // EVALUATIONS),
            "eval.num_batches": min(EVAL_BATCHES, self.steps),
            "checkpoint.every": self.steps,
            "checkpoint.keep": 1,
        }
        folder = self.pretrained(size, variant, seed)
        name = f"pretrain_{size}/{variant}_{seed}"
        return _train(name, f"compare/{variant}", folder, fields, ("store", "held_out"))

    def _choices(self) -> Iterator[Job]:
        for seed in self.seeds:
            for variant in VARIANTS:
                yield _tool(
                    f"choose/{variant}_{seed}",
                    "evaluate",
                    f"--workdir={self.pretrained(self.main, variant, seed)}",
                    self.chosen(variant, seed),
                    f"--tasks={self.workdir / 'choices.jsonl'}",
                    needs=(f"pretrain_{self.main}/{variant}_{seed}", "choices"),
                )

    def _finetune(self) -> Iterator[Job]:
        for seed in self.seeds:
            for task in self.tasks():
                for variant in TASKS[task].objectives:
                    yield self._finetuning(task, variant, seed)

    def _finetuning(self, task: str, variant: str, seed: int) -> Job:
        objective = TASKS[task].objectives[variant]
        fields = dict(TASKS[task].fields) | {"optimizer.learning_rate": _RATES[variant]}
        if variant != "encoder":
            fields |= TASKS[task].writes
        if objective == "completion":  # prompt and answer share a row
            fields["data.seq_len"] += fields["objective.target_length"]
        steps = max(2, round(self.shorten * fields["train.num_steps"]))
        fields |= {
            "train.num_steps": steps,
            "schedule.decay_steps": steps,
            "schedule.warmup_steps": max(1, steps // 10),
            "eval.every": steps,
            "checkpoint.every": steps,
            "checkpoint.keep": 1,
            "train.init_from": self.pretrained(self.main, variant, seed),
            "train.seed": seed,
            "objective.truncate": True,
            "data.path": self.lines(task, objective, "train"),
            "data.eval_path": self.lines(task, objective, "test"),
        }
        folder = self.finetuned(task, variant, seed)
        needs = (f"pretrain_{self.main}/{variant}_{seed}",)
        name = f"finetune_{task}/{variant}_{seed}"
        return _train(name, f"finetune_{objective}", folder, fields, needs)


def _train(
    name: str, config: str, folder: Path, fields: Mapping[str, object], needs: Sequence[str]
) -> Job:
    given = [f"--config.{field}={value}" for field, value in fields.items()]
    command = (sys.executable, "-m", "lmjax.main", f"--config=configs/{config}.py")
    return Job(name, (*command, f"--workdir={folder}", *given), tuple(needs))


def _tool(name: str, tool: str, read: str, output: Path, *more: str, needs=()) -> Job:
    command = (sys.executable, f"tools/{tool}.py", read, f"--output={output}", *more)
    return Job(name, command, tuple(needs))
