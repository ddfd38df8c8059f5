"""BERT, tiny: the first run, on the text that comes with lmjax.

python -m lmjax.main --config=configs/bert_tiny.py --workdir=runs/bert_tiny
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "bert",
            "model": {"preset": "tiny"},
            "objective": {"name": "mlm"},
            "tokenizer": {"vocab_size": 2048},
            "data": {"path": "bundled:corpus_small", "eval_fraction": 0.05, "seq_len": 64},
            # On so little text Adafactor leaves the unigram plateau sooner than AdamW.
            "optimizer": {"name": "adafactor", "learning_rate": 0.05, "weight_decay": 0.0},
            "schedule": {"name": "linear", "warmup_steps": 100, "final_fraction": 0.0},
            "train": {"num_steps": 1000, "global_batch_size": 64},
            "checkpoint": {"every": 250},
            "eval": {"every": 250, "num_batches": None},
            "log": {"every": 50},
        }
    )
