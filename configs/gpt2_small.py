"""GPT-2 small (124M parameters), with the recipe of GPT-3's model of the same size.

    python -m lmjax.main --config=configs/gpt2_small.py --workdir=runs/gpt2_small \
        --config.data.path='my_text/*.jsonl.zst'

Shape: Radford et al. 2019. Recipe: Brown et al. 2020, table 2.1 and appendix B (0.5M tokens a
batch, Adam 0.9/0.95, clip 1, decay 0.1, 375M tokens of warm-up, cosine to 10 %); 300B tokens.
`--dry_run` says what that costs on the machine at hand. Without `data.path` it trains on the small
corpus that comes with lmjax, which is enough to see it run and no more.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "gpt2",
            "model": {"preset": "small"},
            "tokenizer": {"vocab_size": 50_257, "model_type": "bpe"},
            "data": {"seq_len": 1024},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 6e-4,
                "beta1": 0.9,
                "beta2": 0.95,
                "epsilon": 1e-8,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "schedule": {"name": "cosine", "warmup_steps": 715, "final_fraction": 0.1},
            "train": {"num_steps": 572_000, "global_batch_size": 512},
            "checkpoint": {"every": 1000},
            "eval": {"every": 1000, "num_batches": 1},
        }
    )
