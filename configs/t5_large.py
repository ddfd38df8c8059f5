"""T5 1.0 large (738M parameters), with its published recipe.

    python -m lmjax.main --config=configs/t5_large.py --workdir=runs/t5_large \
        --config.data.path='my_text/*.jsonl.zst'

Raffel et al. 2020, section 3.7: spans of 3 hide 15 %, 10^6 steps of 2,048 rows of 512 inputs and
114 targets, 1T tokens; section 3.1: Adafactor, 1/sqrt(max(step, 10^4)), dropout 0.1; z-loss 1e-4
(their code). They mixed in supervised tasks; here all is span corruption. `--dry_run` says what
that costs on the machine at hand.

Fits v5e:4x4: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "t5",
            "model": {"preset": "large", "dropout": 0.1},
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
            "train": {"num_steps": 1_000_000, "global_batch_size": 2048, "z_loss": 1e-4},
            "checkpoint": {"every": 2000},
            "eval": {"every": 2000, "num_batches": 4},
        }
    )
