from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "t5",
            "model": {
                "preset": "v1_1_small",
                "hidden_size": 128,
                "num_layers": 2,
                "num_heads": 4,
                "head_dim": 32,
                "mlp_size": 304,
                "tie_embeddings": True,
                "scale_logits": True,
            },
            "objective": {"name": "denoising", "mask_rate": 0.3, "permute_sentences": False},
            "tokenizer": {"vocab_size": 4096},
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
            "train": {"num_steps": 2400, "global_batch_size": 8},
        }
    )
