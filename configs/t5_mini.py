"""T5, mini: 4 + 4 layers of width 256, 8 rows of 256 inputs and 58 targets; for a CPU.

    python -m lmjax.main --config=configs/t5_mini.py --workdir=runs/t5_mini \
        --config.data.path='my_text/*.jsonl.zst'

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "t5",
            "model": {"preset": "mini"},
            "objective": {"name": "span_corruption"},
            "tokenizer": {"vocab_size": 8192},
            "data": {"seq_len": 256},
            "optimizer": {"learning_rate": 1e-3, "beta2": 0.98, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 500},
            "train": {"num_steps": 10_000, "global_batch_size": 8},
        }
    )
