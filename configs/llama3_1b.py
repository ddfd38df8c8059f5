"""Llama 3.2 1B (1.24B parameters), trained from scratch with TinyLlama's recipe.

    python -m lmjax.main --config=configs/llama3_1b.py --workdir=runs/llama3_1b \
        --config.data.path='my_text/*.jsonl.zst'

The released model was pruned from the 8B and distilled from larger ones (its model card), and its
rates are not published. Recipe: TinyLlama 1.1B (Zhang et al. 2024, section 2, and their code):
4e-4, 2M tokens a batch, AdamW 0.9/0.95, decay 0.1, clip 1, 2,000 steps of warm-up, cosine to 10 %;
3T tokens. Its rows have 2048 tokens; here they have Llama 3's 8192 (Dubey et al. 2024, section
3.4). The preset stretches rotations by 32 from the first step; Llama's were stretched later, for
longer rows. `--dry_run` says what that costs on the machine at hand.

Fits v5p:2x2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "llama",
            "model": {"preset": "llama3_1b"},
            "tokenizer": {"vocab_size": 128_256, "model_type": "bpe"},
            "data": {"seq_len": 8192},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 4e-4,
                "beta1": 0.9,
                "beta2": 0.95,
                "epsilon": 1e-8,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "schedule": {"name": "cosine", "warmup_steps": 2000, "final_fraction": 0.1},
            "train": {"num_steps": 1_430_000, "global_batch_size": 256, "remat": "dots"},
            "checkpoint": {"every": 1000},
            "eval": {"every": 1000, "num_batches": 1},
        }
    )
