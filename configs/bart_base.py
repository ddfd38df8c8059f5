"""BART base (139M parameters), with BART's objective and batch and RoBERTa's optimizer.

    python -m lmjax.main --config=configs/bart_base.py --workdir=runs/bart_base \
        --config.data.path='my_text/*.jsonl.zst'

Lewis et al. 2020, section 5.1, of the large model: sentences in any order, 30 % of the words hidden
in spans of 3, a mask each, 500k steps of 8,000 rows, as RoBERTa. Rows hold whole documents, as many
as fit (theirs one, their code's `complete_doc`). The rest is not in the paper and here RoBERTa's
(Liu et al. 2019, table 9, and fairseq): rows of 512, Adam 0.9/0.98, epsilon 1e-6, decay 0.01 on all
parameters, no clipping, dropout 0.1, 24k steps of warm-up to 6e-4, then linearly to 0.

Theirs had no dropout in the last tenth of the steps. `--dry_run` says what that costs on the
machine at hand.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "bart",
            "model": {"preset": "base", "dropout": 0.1},
            "objective": {"name": "denoising", "mask_rate": 0.3, "mean_span_length": 3.0},
            "tokenizer": {"vocab_size": 50_265, "model_type": "bpe"},
            "data": {"seq_len": 512, "packing": "pack"},
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
            "train": {"num_steps": 500_000, "global_batch_size": 8000},
            "checkpoint": {"every": 1000},
            "eval": {"every": 1000, "num_batches": 1},
        }
    )
