"""Same weights, same logits; same initial distribution, same first loss: against transformers'
PyTorch models. Needs the extra [parity]."""

import json

import jax
import numpy as np
import ours
import pytest
from models import CASES, Case, batch, training_batch
from safetensors.numpy import save_file

from lmjax import config as config_lib
from lmjax import families
from lmjax.config import ModelConfig
from lmjax.data.tokenizer import IdsTokenizer
from lmjax.errors import UserError
from lmjax.nn.model import Model
from lmjax.train import checkpoint, setup, workdir

pytestmark = [
    pytest.mark.parity,
    # 2026-11: third-party imports warn (torch, transformers on Python 3.11).
    pytest.mark.filterwarnings("ignore"),
]


def assert_same_logits(got, expected, fields):
    real = fields["segment_ids"] > 0
    assert np.abs(expected[real]).max() > 1
    difference = np.abs(got - expected)[real].max()
    print(f"largest difference of logits: {difference:.1e}")
    assert difference <= 1e-4


def assert_same_tensors(got, expected):
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert got[name].shape == tensor.shape, name
        assert got[name].tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize("name", CASES)
def test_logits_of_their_model_and_the_way_back(theirs, tmp_path, name):
    case, fields = CASES[name], batch(CASES[name])
    model = theirs.make(case)
    expected = theirs.logits(model, case, fields)
    # Several files, as of a large model.
    saved = theirs.save(model, tmp_path / "saved", max_shard_size="30KB")
    assert (saved / "model.safetensors.index.json").exists()
    work = ours.imported(saved, tmp_path / "work")
    assert_same_logits(ours.logits(work, fields), expected, fields)
    again = ours.exported(work, tmp_path / "again")
    assert_same_tensors(theirs.tensors(again), theirs.tensors(saved))
    back = theirs.load(again, case.model_type)
    assert_same_logits(theirs.logits(back, case, fields), expected, fields)


# Of runs of ours: model_type of the class, preset, and what is not as in the preset.
OURS = {
    "bert": ("bert", "base", {"num_heads": 6}),
    "bert_own_head": ("bert", "base", {"num_heads": 3, "tie_embeddings": False}),
    "roberta": ("roberta", "base", {"num_heads": 6}),
    "modernbert": ("modernbert", "base", {"num_heads": 3, "window": 6, "num_layers": 7}),
    "gpt2": ("gpt2", "small", {"num_heads": 3}),
    "gpt2_own_head": ("gpt2", "small", {"num_heads": 6, "tie_embeddings": False}),
    "bloom": ("bloom", "560m", {"num_heads": 6, "mlp_size": None}),
    "llama": (
        "llama",
        "llama3_1b",
        {"num_heads": 6, "num_kv_heads": 3, "head_dim": 10, "rope_original_positions": 32},
    ),
    "qwen3": (
        "qwen3",
        "qwen3_0_6b",
        {"num_heads": 3, "num_kv_heads": 1, "head_dim": 18, "tie_embeddings": False},
    ),
    "olmo2": ("olmo2", "olmo2_1b", {"num_heads": 6, "num_kv_heads": 2}),
    "t5": ("t5", "base", {"num_heads": 3, "head_dim": 10, "num_encoder_layers": 1}),
    "t5_v1_1": ("t5", "v1_1_base", {"num_heads": 5, "head_dim": 10, "num_encoder_layers": 5}),
    "bart": ("bart", "base", {"num_heads": 6, "num_encoder_layers": 1}),
    "bart_own_heads": (
        "bart",
        "base",
        {"num_heads": 3, "tie_embeddings": False, "encoder_embeddings": True},
    ),
}
TRAINED = ("bert", "gpt2", "t5")
_SPECIAL = {"pad": 0, "eos": 1, "unk": 2, "bos": 3, "mask": 4}  # as our tokenizers have them


def run_of(path, case, preset, fields, num_steps):
    """A workdir as a run leaves it behind after some steps; no parameter is 0 or 1."""
    family, _ = families.FORMATS[case.model_type]
    objective = {"encoder": "mlm", "decoder": "clm"}
    small = {"vocab_size": case.vocab_size, "hidden_size": 36, "num_layers": 2, "mlp_size": 50}
    model = families.FAMILIES[family].PRESETS[preset] | {"init_std": 0.3} | small | fields
    raw = {
        "family": family,
        "model": model,
        "objective": {"name": objective.get(model["architecture"], "span_corruption")},
        "data": {"seq_len": 64},
        "train": {"global_batch_size": 4},
        "schedule": {"warmup_steps": 1},
    }
    config = setup.resolve(config_lib.from_dict(families.resolve(raw)))
    steps = ours.steps(config)
    with steps.program.context():
        state, rng = steps.program.init(), np.random.default_rng(0)
        moved = jax.tree.map(
            lambda leaf: np.float32(leaf + 0.1 * rng.normal(size=leaf.shape)), state.params
        )
        state = state.replace(params=jax.device_put(moved, steps.program.shardings.params))
        for seed in range(num_steps):
            state, metrics = steps(state, training_batch(case, seed), fresh=True)
            assert np.isfinite(metrics["loss"])
    saved = checkpoint.Checkpoints(str(path / "checkpoints"))
    saved.save(num_steps, state, {"seed": 0})
    saved.close()
    (path / "tokenizer").mkdir()
    IdsTokenizer(case.vocab_size, _SPECIAL).save(path / "tokenizer")
    workdir.write(path, workdir.RunConfig(config, {"file": "config.py", "sha256": ""}))


@pytest.mark.parametrize("name", OURS)
def test_logits_of_our_model_in_their_class(theirs, tmp_path, name):
    model_type, preset, different = OURS[name]
    case = Case(model_type, {"vocab_size": 101})
    (tmp_path / "run").mkdir()
    run_of(tmp_path / "run", case, preset, different, 2 if name in TRAINED else 0)
    folder = ours.exported(tmp_path / "run", tmp_path / "exported")
    fields = batch(case)
    model = theirs.load(folder, case.model_type)
    expected = theirs.logits(model, case, fields)
    assert_same_logits(ours.logits(tmp_path / "run", fields), expected, fields)
    # And what they save of it is what we wrote.
    saved = theirs.save(model, tmp_path / "saved")
    assert_same_tensors(theirs.tensors(saved), theirs.tensors(folder))
