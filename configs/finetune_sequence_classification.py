"""Sequence classification: an encoder learns classes of texts from examples.

    python -m lmjax.main --config=configs/finetune_sequence_classification.py \
        --workdir=runs/sentiment --config.train.init_from=runs/bert_tiny \
        --config.data.path=train.jsonl --config.data.eval_path=test.jsonl

Architecture and tokenizer are those of the run that it starts from, and so are the weights unless
`--config.train.init_weights=False`. Lines of the files:

    {"text": "What a good film.", "label": "pos"}

A second text goes into `text_pair`; `--config.data.fields=text=review,label=stars` where the fields
are called otherwise. Devlin et al. 2019, appendix A.3, take 2 to 4 epochs at 2e-5 to 5e-5 for BERT;
the rate here is for small models, which want more.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "objective": {"name": "sequence_classification"},
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
