"""Qwen3 0.6B (596M parameters), with the recipe of GPT-3's model of about the same size.

    python -m lmjax.main --config=configs/qwen3_0_6b.py --workdir=runs/qwen3_0_6b \
        --config.data.path='my_text/*.jsonl.zst'

Yang et al. 2025, section 3.2: rows of 4096 in the first of three stages, 30T tokens; rates, batch
and optimizer are not published. Recipe: Brown et al. 2020, table 2.1 ("GPT-3 Large", 760M) and
appendix B: 2.5e-4, 0.5M tokens a batch, Adam 0.9/0.95, clip 1, decay 0.1, 375M tokens of warm-up,
cosine to 10 % over 260B of 300B tokens; without its growing batches.
`--dry_run` says what that costs on the machine at hand.

Fits v5p:2x2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "llama",
            "model": {"preset": "qwen3_0_6b"},
            "tokenizer": {"vocab_size": 151_669, "model_type": "bpe"},
            "data": {"seq_len": 4096},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 2.5e-4,
                "beta1": 0.9,
                "beta2": 0.95,
                "epsilon": 1e-8,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "schedule": {
                "name": "cosine",
                "warmup_steps": 715,
                "decay_steps": 496_000,
                "final_fraction": 0.1,
            },
            "train": {"num_steps": 572_000, "global_batch_size": 128, "remat": "dots"},
            "checkpoint": {"every": 1000},
            "eval": {"every": 1000, "num_batches": 1},
        }
    )
