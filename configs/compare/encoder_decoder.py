"""Encoder-decoder of the matched comparison: T5-like, 2 + 2 layers of width 96, 8 rows of 128.

    python -m lmjax.main --config=configs/compare/encoder_decoder.py \
        --workdir=runs/encoder_decoder --config.data.path='my_text/*.jsonl.zst'

Beside `encoder.py`, which says what is equal, and `decoder.py`. By BART's infilling, sentences in
their order: the decoder restores the whole text, which teaches it to copy from what the encoder has
read. The embedding starts at 0.05, not T5's 1, so that it can move within so few steps. For a CPU.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "t5",
            "model": {
                "preset": "v1_1_small",
                "hidden_size": 96,
                "num_layers": 2,
                "num_heads": 3,
                "head_dim": 32,
                "mlp_size": 232,
                "tie_embeddings": True,
                "init_std": 0.05,
            },
            "objective": {"name": "denoising", "mask_rate": 0.3, "permute_sentences": False},
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
