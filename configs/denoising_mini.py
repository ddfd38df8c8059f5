"""T5, mini, by BART's denoising: 4 + 4 layers of width 256, 16 rows of 128; worth fine-tuning.

    python -m lmjax.main --config=configs/denoising_mini.py --workdir=runs/denoising_mini \
        --config.data.path='my_text/*.jsonl.zst'

The decoder restores the whole text, so it learns early (here at about step 1,100) to copy from what
the encoder has read, which summaries and answers need. AdamW by the parameter's RMS (nanoT5) gives
T5's large embeddings their share; docs/results.md has what comes of it.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "t5",
            "model": {"preset": "mini"},
            "objective": {"name": "denoising", "mask_rate": 0.3},
            "tokenizer": {"vocab_size": 8192},
            "data": {"seq_len": 128},
            "optimizer": {
                "name": "adamw_rms",
                "learning_rate": 2e-2,
                "beta2": 0.98,
                "weight_decay": 0.0,
            },
            "schedule": {
                "name": "wsd",
                "warmup_steps": 100,
                "cooldown_fraction": 0.3,
                "final_fraction": 0.0,
            },
            "train": {"num_steps": 2500, "global_batch_size": 16},
        }
    )
