from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "modernbert",
            "model": {
                "preset": "mini",
                "hidden_size": 128,
                "num_heads": 4,
                "mlp_size": 384,
                "rope_theta": 10_000.0,
            },
            "objective": {"name": "mlm", "mask_rate": 0.3, "eval_mask_rate": 0.15},
            "tokenizer": {"vocab_size": 4096},
            "data": {"seq_len": 128},
            "optimizer": {
                "name": "stable_adamw",
                "learning_rate": 3e-3,
                "beta2": 0.98,
                "epsilon": 1e-6,
                "weight_decay": 0.01,
                "clip_norm": None,
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
