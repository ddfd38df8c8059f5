"""Span extraction: an encoder learns to find the answer to a question in a text.

    python -m lmjax.main --config=configs/finetune_span_extraction.py \
        --workdir=runs/qa --config.train.init_from=runs/bert_tiny \
        --config.data.path=train.jsonl --config.data.eval_path=test.jsonl

Architecture and tokenizer are those of the run that it starts from, and so are the weights unless
`--config.train.init_weights=False`. Lines of the files:

    {"question": "Where?", "context": "It is in Oslo.",
     "answers": {"text": ["in Oslo"], "answer_start": [6]}}

Examples are as SQuAD's; both lists are empty where there is no answer. Question and text share a
row; what does not fit is an error, or cut with `--config.objective.truncate=True`. The rate is for
small models; Devlin et al. 2019, section 4.2, take 5e-5 for BERT.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "objective": {"name": "span_extraction"},
            "model": {"dropout": 0.1},
            "data": {"seq_len": 384},
            "optimizer": {"learning_rate": 3e-4, "beta2": 0.98, "weight_decay": 0.01},
            "schedule": {"name": "linear", "warmup_steps": 100, "final_fraction": 0.0},
            "train": {"num_steps": 1500, "global_batch_size": 32},
            "checkpoint": {"every": 500},
            "eval": {"every": 500, "num_batches": None},
            "log": {"every": 50},
        }
    )
