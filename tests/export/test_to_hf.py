"""Workdirs to folders for transformers: what they say, what cannot be said, and the way back."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import published
import pytest
import safetensors.numpy

from lmjax import fields as fields_lib
from lmjax.data import files, tokenizer_training
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.tokenizer import IdsTokenizer
from lmjax.errors import UserError
from lmjax.families import weights
from lmjax.train import setup
from lmjax.train.checkpoint import Checkpoints

TOOL = Path(__file__).parents[2] / "tools" / "export_hf.py"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """One of ours: pad 0, eos 1, bos 3."""
    folder = tmp_path_factory.mktemp("tok")
    size = {"vocab_size": 400, "model_type": "bpe", "sample_bytes": 50_000}
    tokenizer_training.train(files.find_files("bundled:corpus_small"), folder, **size)
    return tokenizer_lib.load(folder)


@pytest.fixture(scope="module")
def gpt2(tokenizer, tmp_path_factory):
    """(workdir, parameters) of a decoder; not to be changed."""
    folder = tmp_path_factory.mktemp("gpt2")
    return folder, published.make_run(folder, "gpt2", tokenizer)[1]


def read(folder):
    """(config, generation config or None, tensors) of an exported folder."""
    generation = folder / "generation_config.json"
    return (
        json.loads((folder / "config.json").read_bytes()),
        json.loads(generation.read_bytes()) if generation.exists() else None,
        safetensors.numpy.load_file(folder / "model.safetensors"),
    )


def exported(family, tokenizer, folder, **fields):
    """A model made here, exported: its parameters, and what `read` gives."""
    folder.mkdir(exist_ok=True)
    _, leaves = published.make_run(folder / "run", family, tokenizer, **fields)
    published.export_folder(folder / "run", folder / "out")
    return leaves, *read(folder / "out")


def assert_same(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], strict=True, err_msg=name)


def test_gpt2(gpt2, tmp_path):
    line = published.export_folder(gpt2[0], tmp_path / "out")
    said = (
        "GPT2LMHeadModel at step 0, 28,528 numbers in float32, 7 files; tokenizer.json gives the "
    )
    assert line.startswith(said)
    config, generation, tensors = read(tmp_path / "out")
    assert config == {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "dtype": "float32",
        "vocab_size": 512,
        "tie_word_embeddings": True,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_inner": 24,
        "n_positions": 1024,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    assert generation == {"_from_model_config": True, **ids}
    unit = "stack/unit/0/attention"
    qkv = [
        gpt2[1][f"{unit}/{name}/kernel"][1].reshape(16, 16) for name in ("query", "key", "value")
    ]
    np.testing.assert_array_equal(
        tensors["transformer.h.1.attn.c_attn.weight"], np.concatenate(qkv, axis=1)
    )
    np.testing.assert_array_equal(tensors["transformer.wte.weight"], gpt2[1]["embed/token"])
    assert "lm_head.weight" not in tensors


def test_bert(tokenizer, tmp_path):
    leaves, config, generation, tensors = exported("bert", tokenizer, tmp_path)
    said = {
        "architectures": ["BertForMaskedLM"],
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "bos_token_id": 3,
        "eos_token_id": 1,
    }
    assert said.items() <= config.items()
    assert generation is None
    np.testing.assert_array_equal(tensors["cls.predictions.bias"], leaves["head_bias"])
    np.testing.assert_array_equal(
        tensors["bert.encoder.layer.1.output.dense.weight"],
        leaves["stack/unit/0/mlp/down/kernel"][1].T,
    )


def test_t5(tokenizer, tmp_path):
    leaves, config, generation, tensors = exported("t5", tokenizer, tmp_path, head_dim=6)
    said = {
        "is_encoder_decoder": True,
        "d_kv": 6,
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,
        "scale_decoder_outputs": True,
        "num_layers": 2,
        "num_decoder_layers": 2,
    }
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    assert (said | ids).items() <= config.items()
    assert ids.items() <= generation.items()
    assert generation["bos_token_id"] == config["bos_token_id"] == 3
    name = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    np.testing.assert_array_equal(tensors[name], leaves["stack_bias/table"])
    assert not [n for n in tensors if "relative_attention_bias" in n and ".block.0." not in n]


@pytest.mark.parametrize(("pad", "rows"), [(0, 1), (1, 2)])
def test_roberta(pad, rows, tokenizer, tmp_path):
    """Positions begin behind the padding id's row, whatever ours has in front of them."""
    known = tokenizer if pad == 0 else IdsTokenizer(512, {"pad": pad})
    leaves, config, _, tensors = exported("roberta", known, tmp_path, max_positions=12)
    assert config["pad_token_id"] == pad
    assert config["max_position_embeddings"] == 12 + rows
    table = tensors["roberta.embeddings.position_embeddings.weight"]
    np.testing.assert_array_equal(table, leaves["embed/position"][2 - rows :])
    assert table.shape == (12 + rows, 16)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "family", ["bert", "roberta", "modernbert", "gpt2", "bloom", "llama", "t5", "bart"]
)
def test_what_is_exported_can_be_imported(family, tied, tokenizer, tmp_path):
    own = {"t5": {"head_dim": 6}, "bloom": {"mlp_size": 64}}.get(family, {})
    if family == "bart":
        own = {"encoder_embeddings": not tied}
    fields = {"tie_embeddings": tied, **own}
    leaves, config, _, _ = exported(family, tokenizer, tmp_path, **fields)
    assert config["tie_word_embeddings"] == tied or family == "t5"
    published.import_folder(tmp_path / "out", tmp_path / "back")
    if family == "roberta":  # whose first row of positions no id of ours looks up
        leaves["embed/position"] = leaves["embed/position"][1:]
    assert_same(published.parameters(tmp_path / "back"), leaves)
    published.export_folder(tmp_path / "back", tmp_path / "again")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "again").iterdir())
    told = {"config.json", "README.md", "SHA256SUMS"}  # of dropout and the like, and where from
    for name in names:
        if name not in told:
            assert (tmp_path / "out" / name).read_bytes() == (
                tmp_path / "again" / name
            ).read_bytes()


def test_what_the_class_keeps_beside_the_model_is_kept(tokenizer, tmp_path):
    """An untied BERT's file has a bias that nothing reads; an import keeps it for the way back."""
    exported("bert", tokenizer, tmp_path, tie_embeddings=False)
    config, _, tensors = read(tmp_path / "out")
    kept = tensors["cls.predictions.bias"]
    np.testing.assert_array_equal(kept, tensors["cls.predictions.decoder.bias"])
    published.rewrite(tmp_path / "out", config, tensors | {"cls.predictions.bias": kept + 1})
    published.import_folder(tmp_path / "out", tmp_path / "back")
    published.export_folder(tmp_path / "back", tmp_path / "again")
    assert_same(read(tmp_path / "again")[2], tensors | {"cls.predictions.bias": kept + 1})


@pytest.mark.parametrize("preset", ["data", "fsdp"])
def test_what_training_saves_is_exported_alike(preset, gpt2, tokenizer, tmp_path):
    config, leaves = published.make_run(tmp_path / "run", "gpt2", tokenizer)
    assert_same(leaves, gpt2[1])
    program = setup.make_program(fields_lib.replace(config, {"mesh.preset": preset}))
    params = jax.device_put(weights.nested(leaves), program.shardings.params)
    split = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(params)}
    assert split == {8}
    whole = {leaf.is_fully_replicated for leaf in jax.tree.leaves(params)}
    assert whole == {True} if preset == "data" else False in whole
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(7, program.init_around(params), {})
    checkpoints.close()
    published.export_folder(gpt2[0], tmp_path / "weights")
    assert "at step 7" in published.export_folder(tmp_path / "run", tmp_path / "trained")
    assert "at step 0" in published.export_folder(tmp_path / "run", tmp_path / "first", step=0)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        one, *others = ((tmp_path / d / name).read_bytes() for d in ("weights", "trained", "first"))
        assert others == [one, one]


def test_bfloat16_in_shards(gpt2, tmp_path):
    published.export_folder(gpt2[0], tmp_path / "one")
    published.export_folder(gpt2[0], tmp_path / "more", dtype="bfloat16", max_shard_bytes=20_000)
    assert json.loads((tmp_path / "more" / "config.json").read_bytes())["dtype"] == "bfloat16"
    shards = sorted((tmp_path / "more").glob("*.safetensors"))
    assert len(shards) == 3
    tensors = {k: v for file in shards for k, v in safetensors.numpy.load_file(file).items()}
    exact = read(tmp_path / "one")[2]
    assert_same(tensors, {k: v.astype(ml_dtypes.bfloat16) for k, v in exact.items()})


def test_neither_run_nor_checkpoint(gpt2, tmp_path):
    def refused(path, message, **options):
        with pytest.raises(UserError, match=message) as caught:
            published.export_folder(path, tmp_path / "out", **options)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("out*"))

    refused(tmp_path / "none", "none holds no run; train one there first, or check the path")
    refused(gpt2[0], "holds no checkpoint of step 5; there is 0: take one", step=5)
    run = tmp_path / "run"
    shutil.copytree(gpt2[0], run)
    (arrays,) = (p for p in run.rglob("d") if p.is_dir() and p.parent.name == "state")
    shutil.rmtree(arrays)
    refused(run, r"checkpoint .*/checkpoints/0 is damaged: .* is missing; bring it back")
    shutil.rmtree(run / "checkpoints")
    refused(run, "holds no checkpoint; train first")
    assert not (run / "checkpoints").exists()
    (run / "config.json").write_text("{}")
    refused(run, "config.json is no run's config")


def test_a_checkpoint_of_another_model(gpt2, tokenizer, tmp_path):
    published.make_run(tmp_path, "gpt2", tokenizer, mlp_size=32)
    shutil.rmtree(tmp_path / "checkpoints")
    shutil.copytree(gpt2[0] / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(UserError, match=r"is \[.*24.*\], by config.json it has to be \[.*32.*\]"):
        published.export_folder(tmp_path, tmp_path / "out")


def test_outputs_and_runs_stay_as_they_are(gpt2, tmp_path):
    stamps = lambda: {p: p.stat().st_mtime_ns for p in gpt2[0].rglob("*")}
    before = stamps()
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match="holds something already; choose another output"):
        published.export_folder(gpt2[0], tmp_path)
    with pytest.raises(UserError, match="mine: is a file; choose another output"):
        published.export_folder(gpt2[0], tmp_path / "mine")
    with pytest.raises(UserError, match="below: cannot be written"):
        published.export_folder(gpt2[0], tmp_path / "mine" / "below")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    published.export_folder(gpt2[0], tmp_path / "out")
    assert stamps() == before


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("gpt2", {"norm": "rmsnorm"}, "norm='rmsnorm' .* GPT2LMHeadModel .*, only 'layernorm'"),
        ("gpt2", {"position_offset": 2}, "position_offset=2 .*, only 0"),
        ("gpt2", {"window": 4}, r"layers \[0, 1\] are local"),
        ("gpt2", {"num_kv_heads": 1}, "num_kv_heads=1 .*, only 2"),
        ("gpt2", {"head_dim": 4}, "head_dim=4 .*, only 8"),
        ("gpt2", {"num_heads": 3, "head_dim": 4}, "GPT2LMHeadModel .* not divisible by num_heads"),
        ("gpt2", {"use_bias": False}, "attention_bias=False .*, only True"),
        ("bert", {"position": "rope"}, "position='rope' .* BertForMaskedLM"),
        ("bert", {"head": "lm"}, "head='lm'"),
        ("bert", {"token_types": 0, "norm_placement": "pre"}, "norm_placement='pre'"),
        ("roberta", {"activation": "relu"}, "activation='relu' cannot be said by Roberta"),
        ("roberta", {"position_offset": 0}, "position_offset=0"),
        ("modernbert", {"global_every": None}, r"layer_types with full attention in layers \[\]"),
        ("modernbert", {"rope_factor": 2.0}, "rope_factor=2.0"),
        ("llama", {"embedding_norm": True}, "embedding_norm=True .* LlamaForCausalLM"),
        ("bloom", {"activation": "relu", "mlp_size": 64}, "activation='relu'"),
        ("bloom", {}, "mlp_size=24 .*, only 64"),
        ("t5", {"head_dim": 6, "encoder_embeddings": True}, "encoder_embeddings=True"),
        ("t5", {"head_dim": 6, "activation": "gelu", "mlp_gated": True}, "activation='gelu'"),
        ("bart", {"position_offset": 0}, "position_offset=0 .*, only 2"),
        ("bart", {"frozen_logits_bias": False}, "frozen_logits_bias=False"),
    ],
)
def test_what_no_class_can_say(family, fields, message, tokenizer, tmp_path):
    published.make_run(tmp_path / "run", family, tokenizer, saved=False, **fields)
    with pytest.raises(UserError, match=message) as caught:
        published.export_folder(tmp_path / "run", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out*"))


def test_a_padding_id_with_too_few_rows_before_the_positions(tmp_path):
    known = IdsTokenizer(512, {"pad": 5})
    published.make_run(tmp_path / "run", "roberta", known, saved=False)
    with pytest.raises(UserError, match=r"position_offset=2 cannot be said by Roberta.*, only 6"):
        published.export_folder(tmp_path / "run", tmp_path / "out")


def test_the_tool(gpt2, tmp_path):
    command = [sys.executable, TOOL, f"--workdir={gpt2[0]}", f"--output={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'out'}: GPT2LMHeadModel at step 0, 28,528 numbers")
    names = ["README.md", "SHA256SUMS", "config.json", "generation_config.json"]
    names += ["model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    command[-1] = f"--output={tmp_path / 'bare'}"
    subprocess.run([*command, "--notokenizer"], check=True, capture_output=True)
    assert sorted(p.name for p in (tmp_path / "bare").iterdir()) == names[:5]
