"""Llama 3.1 8B (8.03B parameters), with its published peak and the rest of Llama 2's recipe.

    python -m lmjax.main --config=configs/llama3_8b.py --workdir=runs/llama3_8b \
        --config.data.path='my_text/*.jsonl.zst'

Dubey et al. 2024, table 3 and section 3.4: peak 3e-4, rows of 8192; 15T tokens (model card). Batch,
warm-up and optimizer are published for the 405B alone; here they are those of Llama 2 7B, which has
the same peak (Touvron et al. 2023, section 2.2): 4M tokens a batch, AdamW 0.9/0.95, epsilon 1e-5,
decay 0.1, clip 1, 2,000 steps of warm-up, cosine to 10 %.

Not here: the last phase, of longer rows. The preset stretches rotations by 8 from the first step;
theirs were stretched in that phase. `--dry_run` says what that costs on the machine at hand.

Fits v5p:4x4x4: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "llama",
            "model": {"preset": "llama3_8b"},
            "tokenizer": {"vocab_size": 128_256, "model_type": "bpe"},
            "data": {"seq_len": 8192},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 3e-4,
                "beta1": 0.9,
                "beta2": 0.95,
                "epsilon": 1e-5,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "schedule": {"name": "cosine", "warmup_steps": 2000, "final_fraction": 0.1},
            "train": {"num_steps": 3_576_000, "global_batch_size": 512, "remat": "full"},
            "mesh": {"preset": "fsdp"},
            "checkpoint": {"every": 1000},
            "eval": {"every": 1000, "num_batches": 1},
        }
    )
