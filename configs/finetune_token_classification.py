"""Token classification: an encoder learns to tag words, such as the names among them.

    python -m lmjax.main --config=configs/finetune_token_classification.py \
        --workdir=runs/ner --config.train.init_from=runs/bert_tiny \
        --config.data.path=train.jsonl --config.data.eval_path=test.jsonl

Architecture and tokenizer are those of the run that it starts from, and so are the weights unless
`--config.train.init_weights=False`. Lines of the files:

    {"tokens": ["Anna", "lives", "in", "Oslo"], "tags": ["B-person", "O", "O", "B-place"]}

Tags are IOB, `--config.data.fields=tags=ner_tags` where the fields are called otherwise; a word's
tag is predicted at its first piece. The rate is for small models; Devlin et al. 2019, appendix A.3,
take 2e-5 to 5e-5 for BERT.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "objective": {"name": "token_classification"},
            "model": {"dropout": 0.1},
            "data": {"seq_len": 128},
            "optimizer": {"learning_rate": 3e-4, "beta2": 0.98, "weight_decay": 0.01},
            "schedule": {"name": "linear", "warmup_steps": 100, "final_fraction": 0.0},
            "train": {"num_steps": 1500, "global_batch_size": 32},
            "checkpoint": {"every": 500},
            "eval": {"every": 500, "num_batches": None},
            "log": {"every": 50},
        }
    )
