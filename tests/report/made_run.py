"""A workdir as a run leaves it, without the run."""

import json

from lmjax import config_file
from lmjax.data.tokenizer import IdsTokenizer
from lmjax.train import setup, workdir

LOG = """\
2026-11-20 10:00:00,000 INFO gpt2 : 545k parameters, objective clm, 1 x cpu, float32
2026-11-20 10:00:00,100 INFO 400 steps of 8 x 32 = 256 tokens; 102k tokens in all
2026-11-20 10:00:10,000 INFO step 1/400  loss 6.6696  (first step, compiled in 3 s)
2026-11-20 10:01:00,000 INFO step 120/400  loss 5.6314
2026-11-20 10:01:01,000 WARNING step 121: loss nan, gradient norm nan: this update was not made
Traceback (most recent call last):
2026-11-20 10:05:00,000 INFO gpt2 : 545k parameters, objective clm, 1 x cpu, float32
2026-11-20 10:05:01,000 INFO 400 steps of 8 x 32 = 256 tokens; 102k tokens in all
2026-11-20 10:05:02,000 INFO going on from step 100 in runs/a
2026-11-20 10:05:05,000 INFO step 101/400  loss 6.6696  (first step, compiled in 3 s)
2026-11-20 10:08:20,000 INFO step 400/400  loss 4.6314
"""


def train_row(step, loss, **more):
    """A row of a decoder's run that makes 100 tokens a second."""
    return {
        "step": step,
        "split": "train",
        "loss": loss,
        "content_loss": loss,
        "unigram_loss": 6.0,
        "content_unigram_loss": 6.0,
        "accuracy": 0.1,
        "bits_per_byte": loss / 2,
        "grad_norm": 1.0,
        "skipped_updates": 0,
        "learning_rate": 1e-3,
        "tokens": 256 * step,
        "tokens_per_second": 1000.0,
        **more,
    }


def make(folder, rows, log=LOG, samples=(), ledger=None, **overrides):
    """Writes the files of a workdir whose text is beside it; returns the workdir's path."""
    text = folder / "text.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    text.write_text("")
    if ledger is not None:
        (folder / "ledger.json").write_text(json.dumps(ledger))
    fields = {
        "family": "gpt2",
        "model": {"preset": "tiny"},
        "data": {"path": str(text), "seq_len": 32},
        "train": {"num_steps": 400, "global_batch_size": 8},
    }
    config = setup.resolve(config_file.make(fields, overrides), 600)
    run = folder / "run"
    (run / "tokenizer").mkdir(parents=True)
    (run / "tokenizer" / "tokenizer_config.json").write_text(
        json.dumps(IdsTokenizer(600, {"eos": 1}).config)
    )
    workdir.write(run, workdir.RunConfig(config, None))
    for name, found in (("metrics.jsonl", rows), ("samples.jsonl", samples)):
        (run / name).write_text("".join(json.dumps(row) + "\n" for row in found))
    (run / "lmjax.log").write_text(log)
    return str(run)
