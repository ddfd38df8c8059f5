"""Labelled examples of the bundled text, and small runs to fine-tune."""

import json
import random
import re
from pathlib import Path

import small_run
from small_run import CORPUS

from lmjax import runner

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = {
    "train.num_steps": 8,
    "train.global_batch_size": 8,
    "data.seq_len": 48,
    "schedule.warmup_steps": 2,
    "checkpoint.every": 4,
    "eval.every": 4,
    "log.every": 2,
}


def sentences(count):
    """(text, who it is by), spread over the bundled text, none of them long."""
    found = []
    for line in CORPUS.read_text("utf-8").splitlines():
        document = json.loads(line)
        for text in re.findall(r"[A-Z][^.?!\n]{25,60}[.?!]", document["text"])[:6]:
            found.append((" ".join(text.split()), document["source"]))
    return random.Random(0).sample(found, count)


def _classes(text, source):
    return {"text": text, "label": "prose" if source in ("austen", "moby-dick") else "other"}


def _tags(text, source):
    tokens = re.findall(r"\w+|[^\w\s]", text)
    tags = ["B-cap" if i and word[0].isupper() else "O" for i, word in enumerate(tokens)]
    return {"tokens": tokens, "tags": tags}


def _spans(text, source):
    first, answer = re.match(r"(\S+)\s+(\S+)", text).groups()
    start = text.index(answer, len(first))
    return {
        "question": f"What comes after {first}?",
        "context": text,
        "answers": {"text": [answer], "answer_start": [start]},
    }


def _pairs(text, source):
    return {"source": text, "target": " ".join(text.split()[:3])}


def _completions(text, source):
    return {"prompt": text[: len(text) // 2], "completion": text[len(text) // 2 :]}


RECORD = {
    "sequence_classification": _classes,
    "token_classification": _tags,
    "span_extraction": _spans,
    "seq2seq": _pairs,
    "completion": _completions,
}


def write(folder, objective, train=48, test=16):
    """Files of training and held-out examples."""
    records = [RECORD[objective](*pair) for pair in sentences(train + test)]
    files = []
    for name, part in (("train", records[:train]), ("test", records[train:])):
        file = folder / f"{objective}.{name}.jsonl"
        file.write_text("".join(f"{json.dumps(record)}\n" for record in part))
        files.append(str(file))
    return files


def pretrained(folder, family, objective=None, **overrides):
    """The workdir of a run of two steps; None: the family's objective."""
    file = small_run.config_file(folder, family, objective)
    steps = {"train.num_steps": 2, "eval.num_batches": 1, "checkpoint.every": 2}
    request = runner.Request(file, str(folder / family), steps | overrides)
    assert runner.train(request) == 0
    return str(folder / family)


def request(objective, workdir, init_from, files, **overrides):
    """A short run of the objective's own config."""
    fields = {
        "train.init_from": str(init_from),
        "data.path": files[0],
        "data.eval_path": files[1],
        **SMALL,
    }
    if objective in ("seq2seq", "completion"):
        fields["objective.target_length"] = 24
    if objective == "span_extraction":
        fields["data.seq_len"] = 96
    config = CONFIGS / f"finetune_{objective}.py"
    return runner.Request(str(config), str(workdir), fields | overrides)
