"""Sequence to sequence: an encoder-decoder learns to turn one text into another.

    python -m lmjax.main --config=configs/finetune_seq2seq.py \
        --workdir=runs/translate --config.train.init_from=runs/t5_tiny \
        --config.data.path=train.jsonl --config.data.eval_path=test.jsonl

Architecture and tokenizer are those of the run that it starts from, and so are the weights unless
`--config.train.init_weights=False`. Lines of the files:

    {"source": "It rains.", "target": "Llueve."}

Translation, summaries, answers (put question and text into the source);
`--config.objective.prefix="summarize: "` stands in front of every source. Held-out targets are
written greedily and judged by exact match, F1, ROUGE-L, BLEU and chrF. Raffel et al. 2020, section
3.1.3, fine-tune T5 at a constant 1e-3.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "objective": {"name": "seq2seq", "target_length": 64},
            "model": {"dropout": 0.1},
            "data": {"seq_len": 128},
            "optimizer": {"learning_rate": 1e-3, "beta2": 0.98, "weight_decay": 0.01},
            "schedule": {"name": "linear", "warmup_steps": 100, "final_fraction": 0.0},
            "train": {"num_steps": 3000, "global_batch_size": 32},
            "checkpoint": {"every": 500},
            "eval": {"every": 500, "num_batches": None},
            "log": {"every": 50},
        }
    )
