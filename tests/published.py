"""Small folders in the format of Hugging Face transformers, and workdirs, made without either."""

import json
from pathlib import Path

import numpy as np
import safetensors.numpy
import small_run

from lmjax import families
from lmjax import fields as fields_lib
from lmjax.data import output
from lmjax.export import from_hf, to_hf
from lmjax.families import weights
from lmjax.model_config import ModelConfig
from lmjax.train import checkpoint, setup, workdir
from lmjax.train.workdir import RunConfig

VOCAB = 40
OBJECTIVES = {"decoder": "clm", "encoder": "mlm", "encoder_decoder": "span_corruption"}
IDS = {"pad": 1, "bos": 2, "eos": 3, "cls": 2, "sep": 3, "decoder_start": 3}
_SIZE = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "mlp_size": 24, "vocab_size": VOCAB}
_QWEN3, _OLMO2 = (families.llama.PRESETS[name] for name in ("qwen3_0_6b", "olmo2_1b"))
MODELS = {
    "bert": families.bert.BASE | _SIZE | {"max_positions": 12},
    "roberta": families.roberta.BASE | _SIZE | {"max_positions": 12},
    "modernbert": families.modernbert.BASE | _SIZE | {"num_layers": 5, "window": 4},
    "gpt2": families.gpt2.BASE | _SIZE | {"max_positions": 12},
    "bloom": families.bloom.BASE | _SIZE | {"mlp_size": 64},
    "llama": families.llama.BASE | _SIZE | {"num_kv_heads": 1},
    "qwen3": _QWEN3 | _SIZE | {"num_kv_heads": 1, "head_dim": 6},
    "olmo2": _OLMO2 | _SIZE,
    "t5": families.t5.BASE | _SIZE | {"head_dim": 6, "num_encoder_layers": 3},
    "bart": families.bart.BASE | _SIZE | {"max_positions": 12, "num_encoder_layers": 1},
}


def model_of(model_type, **fields):
    """The config of a small model; one without a longest sequence gets it, for the file's sake."""
    model = MODELS[model_type] | fields
    return ModelConfig(**model | {"max_positions": model["max_positions"] or 64})


def make(folder, model_type, *, ids=None, seed=0, **fields):
    """Writes config.json and model.safetensors; returns the contents of both."""
    fmt, ids = families.FORMATS[model_type][1], IDS if ids is None else ids
    model, rng = model_of(model_type, **fields), np.random.default_rng(seed)
    config = fmt.write_config(model, ids, "float32")
    tensors = {
        entry.name: rng.normal(size=entry.shape).astype(np.float32)
        for entry in weights.entries(fmt, model, ids)
    }
    rewrite(folder, config, tensors)
    return config, tensors


def rewrite(folder, config=None, tensors=None):
    """Puts other contents in their place; None: as it is."""
    Path(folder).mkdir(exist_ok=True)
    if config is not None:
        (Path(folder) / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        safetensors.numpy.save_file(tensors, Path(folder) / "model.safetensors")


def import_folder(folder, workdir, overrides=None):
    """What tools/import_hf.py does; returns what was read."""
    with output.new_folder(str(workdir), marker="config.json", log=lambda line: None) as partial:
        read = from_hf.check(str(folder))
        config = from_hf.config_of(read, overrides or {})
        from_hf.write(read, config, partial, lambda *news: None)
    return read


def make_run(folder, family, tokenizer, *, saved=True, objective=None, **fields):
    """Writes the workdir of a model that was trained here; returns its config and parameters."""
    raw = {"family": family, "data": {"seq_len": 12}, "model": _SIZE | {"vocab_size": 512} | fields}
    raw = families.resolve(raw)
    raw["objective"] = {"name": objective or OBJECTIVES[raw["model"]["architecture"]]}
    config, rng = setup.resolve(fields_lib.from_dict(raw)), np.random.default_rng(0)
    (Path(folder) / "tokenizer").mkdir(parents=True)
    tokenizer.save(Path(folder) / "tokenizer")
    workdir.write(folder, RunConfig(config, None))
    if not saved:
        return config, None
    leaves = {
        path: rng.normal(size=shape).astype(np.float32)
        for path, shape in weights.shapes(config.model).items()
    }
    checkpoint.save_weights(f"{folder}/checkpoints", weights.nested(leaves), {})
    return config, leaves


def export_folder(path, folder, **options):
    """What tools/export_hf.py does; returns its one line."""
    with output.new_folder(str(folder), marker="config.json", log=lambda line: None) as partial:
        return to_hf.export(str(path), partial, progress=lambda *news: None, **options)


def parameters(path, step=0):
    """Those of a workdir's checkpoint, by path."""
    return weights.flat(small_run.parameters(Path(path) / "checkpoints" / str(step)))
