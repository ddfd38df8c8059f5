"""Same weights, same logits; same initial distribution, same first loss: against transformers'
PyTorch models. Needs the extra [parity]."""

import json

import jax
import numpy as np
import ours
import pytest
from models import CASES, Case, batch, training_batch
from safetensors.numpy import load_file, save_file

from lmjax import families
from lmjax import fields as fields_lib
from lmjax.data.tokenizer import IdsTokenizer
from lmjax.errors import UserError
from lmjax.model_config import ModelConfig
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
    "ul2": ("t5", "v1_1_base", {"num_heads": 3, "head_dim": 8, "activation": "silu"}),
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
    config = setup.resolve(fields_lib.from_dict(families.resolve(raw)))
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


def saved_and_expected(theirs, name, folder, **how):
    """(folder, a batch, their logits) of a case as their users save it."""
    case, fields = CASES[name], batch(CASES[name])
    model = theirs.make(case)
    return theirs.save(model, folder, **how), fields, theirs.logits(model, case, fields)


@pytest.mark.parametrize("name", ["modernbert", "llama_biases", "t5_own_head", "bart"])
def test_bfloat16(theirs, tmp_path, name):
    case, fields = CASES[name], batch(CASES[name])
    saved = theirs.save(theirs.make(case).bfloat16(), tmp_path / "saved")
    work = ours.imported(saved, tmp_path / "work")
    again = ours.exported(work, tmp_path / "again", dtype="bfloat16")
    assert_same_tensors(theirs.tensors(again), theirs.tensors(saved))
    exact = ours.exported(work, tmp_path / "exact")
    widened = {k: v.astype(np.float32) for k, v in theirs.tensors(saved).items()}
    assert_same_tensors(theirs.tensors(exact), widened)
    expected = theirs.logits(theirs.load(exact, case.model_type), case, fields)
    assert_same_logits(ours.logits(work, fields), expected, fields)


def rewrite(folder, change):
    """Replaces the tensors of a folder by `change` of them."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("gpt2", "transformer."),
        ("bloom", "transformer."),
        ("bert", "bert."),
        ("llama", "model."),
        ("llama_one_key", "model."),
    ],
)
def test_models_saved_without_their_head(theirs, tmp_path, name, prefix):
    case, fields = CASES[name], batch(CASES[name])
    model = theirs.make(case)
    whole = theirs.save(model, tmp_path / "whole")
    bare = theirs.save(model.base_model, tmp_path / "bare")
    assert not any(tensor.startswith(prefix) for tensor in theirs.tensors(bare))
    if name in ("bert", "llama_one_key"):  # whose head has matrices of its own
        with pytest.raises(UserError, match="missing"):
            ours.imported(bare, tmp_path / "work")
        return
    work = ours.imported(bare, tmp_path / "work")
    assert_same_logits(ours.logits(work, fields), theirs.logits(model, case, fields), fields)
    again = ours.exported(work, tmp_path / "again")
    assert_same_tensors(theirs.tensors(again), theirs.tensors(whole))


@pytest.mark.parametrize(
    ("name", "of", "copies"),
    [
        ("bert", "bert.embeddings.word_embeddings.weight", ["cls.predictions.decoder.weight"]),
        ("gpt2", "transformer.wte.weight", ["lm_head.weight"]),
        ("llama", "model.embed_tokens.weight", ["lm_head.weight"]),
        (
            "t5",
            "shared.weight",
            ["lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"],
        ),
        (
            "bart",
            "model.shared.weight",
            ["lm_head.weight"]
            + [f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")],
        ),
    ],
)
def test_files_that_repeat_what_is_tied(theirs, tmp_path, name, of, copies):
    saved = theirs.save(theirs.make(CASES[name]), tmp_path / "saved")
    expected = theirs.tensors(saved)
    rewrite(saved, lambda tensors: tensors | dict.fromkeys(copies, tensors[of]))
    again = ours.exported(ours.imported(saved, tmp_path / "work"), tmp_path / "again")
    assert_same_tensors(theirs.tensors(again), expected)


def test_older_names_of_keys_and_tensors(theirs, tmp_path):
    saved, fields, expected = saved_and_expected(theirs, "bloom", tmp_path / "bloom")
    config = json.loads((saved / "config.json").read_text())
    for old, new in (("n_embed", "hidden_size"), ("num_attention_heads", "n_head")):
        config[old] = config.pop(new)
    (saved / "config.json").write_text(json.dumps(config))
    work = ours.imported(saved, tmp_path / "bloom_work")
    assert_same_logits(ours.logits(work, fields), expected, fields)

    saved, fields, expected = saved_and_expected(theirs, "bert", tmp_path / "bert")
    older = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )
    rewrite(saved, lambda tensors: {older(k): v for k, v in tensors.items()})
    work = ours.imported(saved, tmp_path / "bert_work")
    assert_same_logits(ours.logits(work, fields), expected, fields)


def test_two_activations_of_modernbert_are_refused(theirs, tmp_path):
    saved, *_ = saved_and_expected(theirs, "modernbert_own_head", tmp_path / "saved")
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"classifier_activation": "relu"}))
    with pytest.raises(UserError, match="classifier_activation='relu' differ"):
        ours.imported(saved, tmp_path / "work")


# model_type -> (their config but the vocabulary, our fields); each starts like the other.
_SIZE = {"hidden_size": 128, "num_layers": 4, "num_heads": 4}
_THEIR_SIZE = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
_IDS = {"bos_token_id": 0, "eos_token_id": 0}


def _starts(model_type, std):
    their = _THEIR_SIZE | {"intermediate_size": 512, "initializer_range": std}
    normal = {"init": "normal", "init_std": std}
    return {
        # Devlin et al. truncate at two standard deviations, transformers does not.
        "bert": (their, normal),
        "gpt2": (
            {"n_embd": 128, "n_layer": 4, "n_head": 4, "initializer_range": std, **_IDS},
            normal,
        ),
        "bloom": (
            {"hidden_size": 128, "n_layer": 4, "n_head": 4, "initializer_range": std},
            normal | {"init_residual_scale": False},  # which Megatron had and transformers has not
        ),
        "llama": (their | _IDS, normal | {"mlp_size": 512, "max_positions": 2048}),
        # No such knob: its matrices start at 1 / sqrt(inputs), its embedding at 1.
        "t5": (
            {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 4, "num_heads": 4},
            {"head_dim": 32},
        ),
    }[model_type]


@pytest.mark.parametrize(
    ("model_type", "std"),
    [
        ("bert", 0.02),
        ("bert", 0.1),
        ("gpt2", 0.02),
        ("gpt2", 0.1),
        ("bloom", 0.1),
        ("llama", 0.1),
        ("t5", None),
    ],
)
def test_the_first_loss(theirs, model_type, std):
    vocab = 4096
    their_fields, fields = _starts(model_type, std)
    case = Case(model_type, {"vocab_size": vocab, **their_fields}, spread=0.0)
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, vocab, (8, 64)).astype(np.int32)
    ones, positions = np.ones_like(inputs), np.tile(np.arange(64, dtype=np.int32), (8, 1))
    rows = {"inputs": inputs, "segment_ids": ones, "positions": positions}
    if model_type == "t5":
        rows |= {f"enc_{name}": field for name, field in rows.items()}
    expected = theirs.logits(theirs.make(case), case, rows)
    base = families.FAMILIES[families.FORMATS[model_type][0]].BASE
    model = Model(ModelConfig(**base | _SIZE | fields), vocab)
    got = np.asarray(
        jax.jit(lambda key: model.apply(model.init(key, rows), rows))(jax.random.key(0))
    )
    targets = np.random.default_rng(1).integers(0, vocab, (8, 64))

    def loss(logits):
        log_p = np.asarray(jax.nn.log_softmax(logits))
        return -np.take_along_axis(log_p, targets[..., None], -1).mean()

    assert loss(got) == pytest.approx(loss(expected), rel=0.02)
    # Losses near ln V agree whatever the initialisation: the logits must spread alike, too.
    assert got.std() == pytest.approx(expected.std(), rel=0.1)
