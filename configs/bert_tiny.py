"""BERT, tiny: the first run, on the text that comes with lmjax.

    python -m lmjax.main --config=configs/bert_tiny.py --workdir=runs/bert_tiny

Masked LM learns word frequencies first and only then, suddenly, to look at neighbours: here at
about step 600. Short pieces and short rows, whose neighbours say most, bring that moment within the
first minutes; with 2,048 pieces and rows of 64 it does not come in so short a run.
2 minutes on 2 CPU cores: held-out content loss 3.41, word frequencies alone 5.09.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "bert",
            "model": {"preset": "tiny"},
            "objective": {"name": "mlm"},
            "tokenizer": {"vocab_size": 512},
            "data": {"path": "bundled:corpus_small", "eval_fraction": 0.05, "seq_len": 32},
            "optimizer": {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 0.01},
            "schedule": {"name": "linear", "warmup_steps": 100, "final_fraction": 0.0},
            "train": {"num_steps": 1000, "global_batch_size": 128},
            "checkpoint": {"every": 200},
            "eval": {"every": 200, "num_batches": None},
            "log": {"every": 50},
        }
    )
