"""BERT large (335M parameters), with its published recipe.

    python -m lmjax.main --config=configs/bert_large.py --workdir=runs/bert_large \
        --config.data.path='my_text/*.jsonl.zst'

Devlin et al. 2019, appendix A.2, the same for both sizes: Adam 0.9/0.999, decay 0.01 except norms
and biases, dropout 0.1, 256 rows of 512, 10k of 1M steps of warm-up to 1e-4, then linearly to 0;
from their code: epsilon 1e-6, no bias correction, clip 1. They trained nine tenths of the steps on
rows of 128; here all have 512.
`--dry_run` says what that costs on the machine at hand.

Fits v5e:4x4: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "bert",
            "model": {"preset": "large", "dropout": 0.1},
            "objective": {"name": "mlm", "mask_rate": 0.15},
            "tokenizer": {"vocab_size": 30_522},
            "data": {"seq_len": 512},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-4,
                "beta1": 0.9,
                "beta2": 0.999,
                "epsilon": 1e-6,
                "bias_correction": False,
                "weight_decay": ((r".*(/bias|_bias|/scale)", 0.0), (r".*", 0.01)),
                "clip_norm": 1.0,
            },
            "schedule": {"name": "linear", "warmup_steps": 10_000, "final_fraction": 0.0},
            "train": {"num_steps": 1_000_000, "global_batch_size": 256},
            "checkpoint": {"every": 2000},
            "eval": {"every": 2000, "num_batches": 4},
        }
    )
