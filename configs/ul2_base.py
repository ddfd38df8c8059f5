"""UL2 base (248M parameters): T5 1.1's network with SwiGLU, trained by UL2's mixture of denoisers.

    python -m lmjax.main --config=configs/ul2_base.py --workdir=runs/ul2_base \
        --config.data.path='my_text/*.jsonl.zst'

Tay et al. 2022, table 1 and section 4.2: seven denoisers in equal shares, each with its mode token;
rows of 512, 128 of them, 500k steps, Adafactor, 1/sqrt(step), no dropout, SwiGLU. Peak and z-loss
are T5's. Text runs on from document to document, as in T5's code. `--dry_run` says what that costs
on the machine at hand.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "t5",
            "model": {"preset": "v1_1_base", "activation": "silu", "dropout": 0.0},
            "objective": {"name": "ul2"},
            "tokenizer": {"vocab_size": 32_000, "model_type": "unigram"},
            "data": {"seq_len": 512},
            "optimizer": {
                "name": "adafactor",
                "learning_rate": 0.01,
                "weight_decay": 0.0,
                "clip_norm": None,
            },
            "schedule": {"name": "rsqrt", "warmup_steps": 0, "hold_steps": 10_000},
            "train": {"num_steps": 500_000, "global_batch_size": 128, "z_loss": 1e-4},
            "checkpoint": {"every": 2000},
            "eval": {"every": 2000, "num_batches": 4},
        }
    )
