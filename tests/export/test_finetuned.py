"""Fine-tuned models in the hands of transformers' stock classes: the same ids, types and logits."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import small_run
from labelled_files import RECORD, sentences

from lmjax import config_file, objectives
from lmjax.data.labelled import TextEncoder
from lmjax.families import weights
from lmjax.train import checkpoint, setup, workdir
from lmjax.train import trained as trained_lib

pytestmark = [
    pytest.mark.parity,
    # 2026-11: third-party imports warn (torch, transformers on Python 3.11).
    pytest.mark.filterwarnings("ignore"),
]

TASKS = {
    "sequence_classification": "SequenceClassification",
    "token_classification": "TokenClassification",
    "span_extraction": "QuestionAnswering",
}
CLASSES = {"bert": "Bert", "roberta": "Roberta", "modernbert": "ModernBert"}
LABELS = {"sequence_classification": ("other", "prose"), "token_classification": ("B-cap", "O")}


def make_run(folder, family, objective, tokenizer):
    """A workdir as fine-tuning leaves it behind; no parameter is 0 or 1."""
    small = {"hidden_size": 32, "num_layers": 4, "num_heads": 2, "mlp_size": 48, "window": None}
    if family == "modernbert":
        small |= {"window": 6}
    labels = LABELS.get(objective, ())
    raw = {
        "family": family,
        "model": small,
        "objective": {"name": objective, "labels": labels, "begins_with_bos": True},
        "data": {"seq_len": 128},
        "train": {"init_from": "somewhere"},
    }
    config = setup.resolve(config_file.make(raw, {}), tokenizer.vocab_size, labels)
    rng = np.random.default_rng(0)
    leaves = {
        name: rng.normal(name.endswith("scale"), 0.2, size=shape).astype(np.float32)
        for name, shape in weights.shapes(config.model).items()
    }
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer")
    workdir.write(folder, workdir.RunConfig(config, None))
    checkpoint.save_weights(f"{folder}/checkpoints", weights.nested(leaves), {})
    return config


def texts_of(record):
    """As a tokenizer of transformers takes them."""
    if "question" in record:
        return record["question"], record["context"]
    return (record["text"],) if "text" in record else (" ".join(record["tokens"]),)


def logits_of_ours(folder, batch):
    ours = trained_lib.load(str(folder), devices=jax.devices()[:1])
    with ours.context():
        return np.asarray(jax.jit(ours.model.apply)({"params": ours.params}, batch))


@pytest.mark.parametrize("objective", TASKS)
@pytest.mark.parametrize("family", CLASSES)
def test_stock_classes_give_the_same_logits(family, objective, trained, tmp_path):
    torch, library = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer, folder = trained("bpe", 600), tmp_path / "hf"
    config = make_run(tmp_path / "run", family, objective, tokenizer)
    small_run.export(tmp_path / "run", folder)
    said = json.loads((folder / "config.json").read_text())
    assert said["architectures"] == [f"{CLASSES[family]}For{TASKS[objective]}"]
    task = objectives.describe(config).task
    assert f"pipeline_tag: {task}" in Path(folder / "README.md").read_text()

    made = objectives.make(config, setup.make_ids(config, tokenizer))
    records = [RECORD[objective](*pair) for pair in sentences(6)]
    examples = [made.encode(record, TextEncoder(tokenizer)).row for record in records]
    length = max(len(row["inputs"]) for row in examples)
    names = [n for n in ("inputs", "segment_ids", "positions", "token_types") if n in examples[0]]
    batch = {
        name: np.stack([np.pad(row[name], (0, length - len(row[name]))) for row in examples])
        for name in names
    }
    texts = map(list, zip(*map(texts_of, records), strict=True))
    theirs = library.AutoTokenizer.from_pretrained(folder)
    encoded = theirs(*texts, padding=True, return_tensors="pt")
    assert np.array_equal(encoded["input_ids"], batch["inputs"])
    assert np.array_equal(encoded["attention_mask"], batch["segment_ids"])
    assert ("token_types" in batch) == (family == "bert" and objective != "token_classification")
    if "token_types" in batch:
        assert np.array_equal(encoded["token_type_ids"], batch["token_types"])

    model = getattr(library, f"AutoModelFor{TASKS[objective]}").from_pretrained(folder).eval()
    if labels := LABELS.get(objective):
        assert model.config.id2label == dict(enumerate(labels))
    with torch.no_grad():
        output = model(**encoded)
    if objective == "sequence_classification":
        batch["predict_at"] = np.zeros((len(records), 1), np.int32)
    got, real = logits_of_ours(tmp_path / "run", batch), batch["segment_ids"] > 0
    if objective == "sequence_classification":
        pairs = got[:, 0], output.logits.numpy()
    elif objective == "token_classification":
        pairs = got[real], output.logits.numpy()[real]
    else:
        ends = torch.stack([output.start_logits, output.end_logits], 1).numpy()
        pairs = got[:, :, real.all(axis=0)], ends[:, :, real.all(axis=0)]
    assert np.ptp(pairs[1]) > 0.1
    difference = np.abs(np.subtract(*pairs)).max()
    print(f"largest difference of logits: {difference:.1e}")
    assert difference <= 1e-4
