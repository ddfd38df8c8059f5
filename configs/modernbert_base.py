"""ModernBERT base (149M parameters), with the published recipe of its first phase.

    python -m lmjax.main --config=configs/modernbert_base.py --workdir=runs/modernbert_base \
        --config.data.path='my_text/*.jsonl.zst'

Warner et al. 2024, section 2.2 and appendix A: 30 % masked (15 % in evaluation), StableAdamW
0.9/0.98, epsilon 1e-6, no clipping, 4,608 rows of 1024, 3B tokens of warm-up to 8e-4, constant for
1.7T tokens, then 50B with 1-sqrt decay. Their decay of 1e-5 a step follows the schedule but not the
peak (their code): divided by the peak it is 0.0125 here, where decay is multiplied by the rate;
norms and biases have none. Documents are packed into rows, best fit first, and kept apart (theirs
are greedy, section 2.1.2).

Not here: batches that grow from 768 rows over the first 50B tokens; 250B tokens on rows of 8192 at
3e-4 before the decay, which theirs does on such rows too; dropout of 0.1 on attention's results
alone (there is one rate for all, so none). The rotations' base is 10,000 in all layers, as in this
phase; for the later one `--config.model.rope_theta=160000.0`, the preset's, in the global ones.
`--dry_run` says what that costs on the machine at hand.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "modernbert",
            "model": {"preset": "base", "rope_theta": 10_000.0},
            "objective": {"name": "mlm", "mask_rate": 0.3, "eval_mask_rate": 0.15},
            "tokenizer": {"vocab_size": 50_368, "model_type": "bpe"},
            "data": {"seq_len": 1024, "packing": "pack"},
            "optimizer": {
                "name": "stable_adamw",
                "learning_rate": 8e-4,
                "beta1": 0.9,
                "beta2": 0.98,
                "epsilon": 1e-6,
                "weight_decay": ((r".*(/bias|_bias|/scale)", 0.0), (r".*", 0.0125)),
                "clip_norm": None,
            },
            "schedule": {
                "name": "wsd",
                "warmup_steps": 636,
                "cooldown_fraction": 0.0286,  # 50B of 1.75T tokens
                "final_fraction": 0.0,
            },
            "train": {"num_steps": 371_000, "global_batch_size": 4608},
            "checkpoint": {"every": 1000},
            "eval": {"every": 1000, "num_batches": 1},
        }
    )
