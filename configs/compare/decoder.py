from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "llama",
            "model": {
                "preset": "llama3_1b",
                "hidden_size": 128,
                "num_layers": 4,
                "num_heads": 4,
                "num_kv_heads": 4,
                "mlp_size": 384,
                "rope_theta": 10_000.0,
                "rope_factor": 1.0,
            },
            "objective": {"name": "clm"},
            "tokenizer": {"vocab_size": 4096},
            "data": {"seq_len": 126},
            "optimizer": {
                "learning_rate": 3e-3,
                "beta2": 0.98,
                "weight_decay": 0.01,
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
