"""T5 1.1 base (248M parameters), with its published recipe.

    python -m lmjax.main --config=configs/t5_v1_1_base.py --workdir=runs/t5_v1_1_base \
        --config.data.path='my_text/*.jsonl.zst'

Shape: gated tanh-GELU, untied head, no dropout in pre-training (Shazeer 2020; the page of released
checkpoints of github.com/google-research/text-to-text-transfer-transformer). Recipe: Adafactor,
1/sqrt(max(step, 10^4)), z-loss 1e-4, batches of 2^20 tokens, 10^6 steps, as mT5 of the same shape
(Xue et al. 2021, section 3.2). `--dry_run` says what that costs on the machine at hand.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "t5",
            "model": {"preset": "v1_1_base", "dropout": 0.0},
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
