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
            "tokenizer": {"vocab_size": 2048},
            "data": {"path": "bundled:corpus_small", "eval_fraction": 0.05, "seq_len": 64},
            "optimizer": {"name": "adafactor", "learning_rate": 0.03, "weight_decay": 0.0},
            "schedule": {"name": "cosine", "warmup_steps": 50, "final_fraction": 0.1},
            "train": {"num_steps": 600, "global_batch_size": 64},
            "checkpoint": {"every": 200},
            "eval": {"every": 200, "num_batches": None},
            "log": {"every": 50},
        }
    )
