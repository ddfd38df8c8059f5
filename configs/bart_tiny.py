"""BART, tiny: denoising on the text that comes with lmjax.

    python -m lmjax.main --config=configs/bart_tiny.py --workdir=runs/bart_tiny

Lewis et al. 2020: the encoder reads sentences in any order with 30 % of their words behind masks,
the decoder writes the whole text. Documents are kept apart, as many in a row as fit.
The decoder first learns to copy, then what to put in the place of a mask.
2 minutes 5 seconds on 2 CPU cores, beside other work: held-out content loss 3.81, word frequencies
alone 5.07.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "bart",
            "model": {"preset": "tiny"},
            "objective": {"name": "denoising", "mask_rate": 0.3, "mean_span_length": 3.0},
            "tokenizer": {"vocab_size": 512},
            "data": {
                "path": "bundled:corpus_small",
                "eval_fraction": 0.05,
                "seq_len": 32,
                "packing": "pack",
            },
            "optimizer": {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 0.01},
            "schedule": {"name": "linear", "warmup_steps": 100, "final_fraction": 0.0},
            "train": {"num_steps": 600, "global_batch_size": 64},
            "checkpoint": {"every": 300},
            "eval": {"every": 300, "num_batches": None},
            "log": {"every": 50},
        }
    )
