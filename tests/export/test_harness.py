"""lm-evaluation-harness runs exported folders on a task of one's own, offline, and measures what
`tools/score.py` says. Needs the extras [parity,harness]."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import small_run

from lmjax import runner
from lmjax.infer.examples import Framing
from lmjax.infer.score import Scorer
from lmjax.train import trained as trained_lib

pytestmark = pytest.mark.parity

QUESTIONS = [
    ("She had been a friend and", ["companion", "in the and of"]),
    ("And God said, Let there be", ["light", "upon whale", "xylophones"]),
    ("Call me", ["Ishmael", "1,000,000"]),
    ("He went to", ["the house", "house the", "of"]),
]
TASK = """\
task: one_of_ours
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
"""


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_the_harness_measures_what_lmjax_does(family, tmp_path):
    pytest.importorskip("lm_eval")
    text = tmp_path / "text.jsonl"
    text.write_text("".join(small_run.CORPUS.read_text().splitlines(keepends=True)[:30]))
    (tmp_path / "config.py").write_text(small_run.config(text, tmp_path / "cache", family))
    overrides = {"train.num_steps": 20}
    request = runner.Request(str(tmp_path / "config.py"), str(tmp_path / "run"), overrides)
    assert runner.train(request) == 0
    small_run.export(tmp_path / "run", tmp_path / "exported")
    results, samples = _harness(tmp_path)
    ours = _ours(str(tmp_path / "run"))
    theirs = [[float(choice[0]) for choice in row["filtered_resps"]] for row in samples]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other, mine, atol=1e-3, rtol=0)
    right = np.mean([np.argmax(row) == 0 for row in ours])
    assert results["results"]["one_of_ours"]["acc,none"] == pytest.approx(right)


def _harness(folder):
    """What it writes: results, and rows with the log-likelihood of each choice."""
    tasks, rows = folder / "tasks", []
    for context, choices in QUESTIONS:
        rows.append(json.dumps({"context": context, "choices": choices, "answer": 0}))
    (folder / "questions.jsonl").write_text("\n".join(rows))
    tasks.mkdir()
    (tasks / "one_of_ours.yaml").write_text(TASK.format(file=folder / "questions.jsonl"))
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={folder / 'exported'},dtype=float32"]
    command += ["--include_path", str(tasks), "--tasks", "one_of_ours", "--batch_size", "4"]
    command += ["--output_path", str(folder / "said"), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    subprocess.run(command, check=True, env=os.environ | offline, capture_output=True)
    (results,) = (folder / "said").rglob("results_*.json")
    (samples,) = (folder / "said").rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text()), sorted(lines, key=lambda row: row["doc_id"])


def _ours(workdir):
    """log p(choice | context) of each choice of each question; a space belongs to the choice."""
    run = trained_lib.load(workdir, devices=jax.devices()[:1])
    frame = Framing(
        run.config.model, run.model.vocab_size, run.tokenizer, run.frame, run.decoder_start_id
    )
    scorer = Scorer(run.model, run.params, run.batch_sharding, batch_tokens=1024)
    encode = lambda text: run.tokenizer.encode(text).tolist()

    def logprob(context, choice):
        if run.config.model.architecture == "encoder_decoder":
            source = [*encode(context), run.tokenizer.eos_id]
            return score({"source_ids": source, "target_ids": encode(choice)})
        whole, start = encode(context + choice), len(encode(context))
        return score({"token_ids": whole}) - score({"token_ids": whole[:start]})

    def score(record):
        with run.context():
            return scorer([frame(record)])[0].logprob

    return [[logprob(context, f" {c}") for c in choices] for context, choices in QUESTIONS]
