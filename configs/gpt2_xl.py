"""GPT-2 XL (1.56B parameters), with the recipe of GPT-3's model of about the same size.

    python -m lmjax.main --config=configs/gpt2_xl.py --workdir=runs/gpt2_xl \
        --config.data.path='my_text/*.jsonl.zst'

Shape: Radford et al. 2019, whose rates are not published. Recipe: Brown et al. 2020, table 2.1
("GPT-3 XL") and appendix B: 2e-4, 1M tokens a batch, Adam 0.9/0.95, clip 1, decay 0.1, 375M tokens
of warm-up, cosine to 10 % over 260B of 300B tokens. Their rows have 2048 tokens, and their batches
grow to full size over the first billions of tokens; here rows have GPT-2's 1024 and batches one
size. `--dry_run` says what that costs on the machine at hand.

Fits v5e:8x8: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "gpt2",
            "model": {"preset": "xl"},
            "tokenizer": {"vocab_size": 50_257, "model_type": "bpe"},
            "data": {"seq_len": 1024},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 2e-4,
                "beta1": 0.9,
                "beta2": 0.95,
                "epsilon": 1e-8,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "schedule": {
                "name": "cosine",
                "warmup_steps": 358,
                "decay_steps": 248_000,
                "final_fraction": 0.1,
            },
            "train": {"num_steps": 286_000, "global_batch_size": 1024, "remat": "dots"},
            "mesh": {"preset": "fsdp"},
            "checkpoint": {"every": 1000},
            "eval": {"every": 1000, "num_batches": 1},
        }
    )
