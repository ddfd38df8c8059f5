"""BLOOM 560M (559M parameters), with its published recipe.

    python -m lmjax.main --config=configs/bloom_560m.py --workdir=runs/bloom_560m \
        --config.data.path='my_text/*.jsonl.zst'

Le Scao et al. 2022, table 3: Adam 0.9/0.95, decay 0.1, clip 1, 256 rows of 2048, 375M tokens of
warm-up to 3e-4, then a cosine that would reach 1e-5 at 410B tokens; it stops at 341B. Epsilon 1e-8
and no decay on norms and biases are the defaults of their code (Megatron-DeepSpeed).
`--dry_run` says what that costs on the machine at hand.

Fits v6e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "bloom",
            "model": {"preset": "560m"},
            "tokenizer": {"vocab_size": 250_680, "model_type": "bpe"},
            "data": {"seq_len": 2048},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 3e-4,
                "beta1": 0.9,
                "beta2": 0.95,
                "epsilon": 1e-8,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "schedule": {
                "name": "cosine",
                "warmup_steps": 715,
                "decay_steps": 782_000,
                "final_fraction": 1e-5 / 3e-4,
            },
            "train": {"num_steps": 650_000, "global_batch_size": 256},
            "checkpoint": {"every": 1000},
            "eval": {"every": 1000, "num_batches": 1},
        }
    )
