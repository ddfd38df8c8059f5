"""T5, tiny: span corruption on the text that comes with lmjax.

python -m lmjax.main --config=configs/t5_tiny.py --workdir=runs/t5_tiny
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "t5",
            "model": {"preset": "tiny"},
            "objective": {"name": "span_corruption"},
            "tokenizer": {"vocab_size": 4096},
            "data": {"path": "bundled:corpus_small", "eval_fraction": 0.05, "seq_len": 128},
            "optimizer": {"learning_rate": 2e-3, "beta2": 0.98, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 100, "final_fraction": 0.1},
            "train": {"num_steps": 1000, "global_batch_size": 16},
            "checkpoint": {"every": 250},
            "eval": {"every": 250, "num_batches": None},
            "log": {"every": 25},
        }
    )
