"""ModernBERT, mini: 4 layers of width 256, 16 rows of 128; an encoder worth fine-tuning from a CPU.

    python -m lmjax.main --config=configs/modernbert_mini.py --workdir=runs/modernbert_mini \
        --config.data.path='my_text/*.jsonl.zst'

Norms in front, rotated positions and 30 % of masks let so small an encoder use its context within
minutes, where a post-norm one is still learning word frequencies.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "modernbert",
            "model": {"preset": "mini", "rope_theta": 10_000.0},
            "objective": {"name": "mlm", "mask_rate": 0.3, "eval_mask_rate": 0.15},
            "tokenizer": {"vocab_size": 8192},
            "data": {"seq_len": 128, "packing": "pack"},
            "optimizer": {
                "name": "stable_adamw",
                "learning_rate": 2e-3,
                "beta2": 0.98,
                "epsilon": 1e-6,
                "weight_decay": ((r".*(/bias|_bias|/scale)", 0.0), (r".*", 0.0125)),
                "clip_norm": None,
            },
            "schedule": {
                "name": "wsd",
                "warmup_steps": 200,
                "cooldown_fraction": 0.3,
                "final_fraction": 0.0,
            },
            "train": {"num_steps": 5500, "global_batch_size": 16},
        }
    )
