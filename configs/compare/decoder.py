"""Decoder of the matched comparison: Llama-like, 4 layers of width 96, 8 rows of 126.

    python -m lmjax.main --config=configs/compare/decoder.py --workdir=runs/decoder \
        --config.data.path='my_text/*.jsonl.zst'

Beside `encoder.py`, which says what is equal, and `encoder_decoder.py`. A row has 126 tokens, the
text that a row of 128 of the others has between its two special tokens. For a CPU.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "llama",
            "model": {
                "preset": "llama3_1b",
                "hidden_size": 96,
                "num_layers": 4,
                "num_heads": 3,
                "num_kv_heads": 3,
                "mlp_size": 288,
                "rope_theta": 10_000.0,
                "rope_factor": 1.0,
            },
            "objective": {"name": "clm"},
            "tokenizer": {"vocab_size": 4096},
            "data": {"seq_len": 126},
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
