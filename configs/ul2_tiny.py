"""T5, tiny, by UL2's mixture of denoisers, each announced by a mode token.

    python -m lmjax.main --config=configs/ul2_tiny.py --workdir=runs/ul2_tiny

The recipe of t5_tiny.py with the seven denoisers of Tay et al. 2022, table 1.
Rows of 20: for more than half of the run the decoder is a language model of its own, then it uses
the encoder, too.
4 minutes 3 seconds on 2 CPU cores, beside other work: held-out content loss 3.44, word frequencies
alone 5.07.

Fits v5e:2x2: docs/plans.md has what it takes there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "family": "t5",
            "model": {"preset": "tiny"},
            "objective": {"name": "ul2"},
            "tokenizer": {"vocab_size": 512},
            "data": {"path": "bundled:corpus_small", "eval_fraction": 0.05, "seq_len": 20},
            "optimizer": {"name": "adafactor", "learning_rate": 0.03, "weight_decay": 0.0},
            "schedule": {"name": "linear", "warmup_steps": 200, "final_fraction": 0.0},
            "train": {"num_steps": 1000, "global_batch_size": 128},
            "checkpoint": {"every": 500},
            "eval": {"every": 500, "num_batches": None},
            "log": {"every": 50},
        }
    )
