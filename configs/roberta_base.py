"""RoBERTa base (125M parameters), with its published recipe.

    python -m lmjax.main --config=configs/roberta_base.py --workdir=runs/roberta_base \
        --config.data.path='my_text/*.jsonl.zst'

Liu et al. 2019, table 9: Adam 0.9/0.98, epsilon 1e-6, decay 0.01, dropout 0.1, no clipping, 8k rows
of 512, 24k of 500k steps of warm-up to 6e-4, then linearly to 0; from their code (fairseq): decay
on all parameters, norms and biases included. 8k is taken as 8,192. Rows are full sentences (section
4.2): they run on from one document into the next, behind a separator, and attention sees them all.
`--dry_run` says what that costs on the machine at hand.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "roberta",
            "model": {"preset": "base", "dropout": 0.1},
            "objective": {"name": "mlm", "mask_rate": 0.15},
            "tokenizer": {"vocab_size": 50_265, "model_type": "bpe"},
            "data": {"seq_len": 512, "packing": "stream", "cross_documents": True},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 6e-4,
                "beta1": 0.9,
                "beta2": 0.98,
                "epsilon": 1e-6,
                "weight_decay": ((r".*", 0.01),),
                "clip_norm": None,
            },
            "schedule": {"name": "linear", "warmup_steps": 24_000, "final_fraction": 0.0},
            "train": {"num_steps": 500_000, "global_batch_size": 8192},
            "checkpoint": {"every": 1000},
            "eval": {"every": 1000, "num_batches": 1},
        }
    )
