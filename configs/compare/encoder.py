"""Encoder of the matched comparison: ModernBERT-like, 4 layers of width 96, 8 rows of 128.

    python -m lmjax.main --config=configs/compare/encoder.py --workdir=runs/encoder \
        --config.data.path='my_text/*.jsonl.zst'

Beside `decoder.py` and `encoder_decoder.py`: as many parameters but for the embedding, the same 126
tokens of text in a row (two are special), as many rows and steps, the same optimizer, each at the
best of the same rates. Pre-norm, gated MLP and no biases, as in the others. `tools/compare.py
--matched` runs all three, in three sizes; docs/results.md has what came of it. For a CPU.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "modernbert",
            "model": {
                "preset": "mini",
                "hidden_size": 96,
                "num_heads": 3,
                "mlp_size": 288,
                "rope_theta": 10_000.0,
            },
            "objective": {"name": "mlm", "mask_rate": 0.3, "eval_mask_rate": 0.15},
            "tokenizer": {"vocab_size": 4096},
            "data": {"seq_len": 128},
            "optimizer": {"name": "muon", "learning_rate": 6e-3, "weight_decay": 0.01},
            "schedule": {
                "name": "wsd",
                "warmup_steps": 100,
                "cooldown_fraction": 0.3,
                "final_fraction": 0.0,
            },
            "train": {"num_steps": 1500, "global_batch_size": 8},
        }
    )
