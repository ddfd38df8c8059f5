"""Completion: a decoder learns to answer prompts; the loss is that of the answers alone.

    python -m lmjax.main --config=configs/finetune_completion.py \
        --workdir=runs/answers --config.train.init_from=runs/gpt2_tiny \
        --config.data.path=train.jsonl --config.data.eval_path=test.jsonl

Architecture and tokenizer are those of the run that it starts from, and so are the weights unless
`--config.train.init_weights=False`. Lines of the files:

    {"prompt": "Question: Where?\\nAnswer:", "completion": " In Oslo."}

Prompt, answer and end token share a row. Held-out answers are written greedily and judged by exact
match, F1, ROUGE-L, BLEU and chrF. Radford et al. 2018, section 4.1, fine-tune for 3 epochs at
6.25e-5; the rate here is for small models.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "objective": {"name": "completion", "target_length": 64},
            "model": {"dropout": 0.1},
            "data": {"seq_len": 256},
            "optimizer": {"learning_rate": 3e-4, "beta2": 0.98, "weight_decay": 0.01},
            "schedule": {"name": "linear", "warmup_steps": 100, "final_fraction": 0.0},
            "train": {"num_steps": 1500, "global_batch_size": 32},
            "checkpoint": {"every": 500},
            "eval": {"every": 500, "num_batches": None},
            "log": {"every": 50},
        }
    )
