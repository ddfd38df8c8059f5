"""T5 1.0 base (223M parameters), with its published recipe.

    python -m lmjax.main --config=configs/t5_base.py --workdir=runs/t5_base \
        --config.data.path='my_text/*.jsonl.zst'

Raffel et al. 2020, sections 3.1.2 and 3.1.4: Adafactor, 1/sqrt(max(step, 10^4)), dropout 0.1, 2^19
steps of 2^16 tokens: 128 rows of 512 inputs and 114 targets; z-loss 1e-4 (their code). `--dry_run`
says what that costs on the machine at hand.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "t5",
            "model": {"preset": "base", "dropout": 0.1},
            "objective": {"name": "span_corruption", "mask_rate": 0.15, "mean_span_length": 3.0},
            "tokenizer": {"vocab_size": 32_000, "model_type": "unigram"},
            "data": {"seq_len": 512},
            "optimizer": {
                "name": "adafactor",
                "learning_rate": 0.01,
                "weight_decay": 0.0,
                "clip_norm": None,
            },
            "schedule": {"name": "rsqrt", "warmup_steps": 0, "hold_steps": 10_000},
            "train": {"num_steps": 2**19, "global_batch_size": 128, "z_loss": 1e-4},
            "checkpoint": {"every": 2000},
            "eval": {"every": 2000, "num_batches": 4},
        }
    )
