"""Folders that cannot be imported: one line says why, and nothing is left behind."""

import functools
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import published
import pytest
import safetensors.numpy

from lmjax import fields as fields_lib
from lmjax.errors import UserError
from lmjax.export import from_hf
from lmjax.families import weights
from lmjax.hf.format import essence

TOOL = Path(__file__).parents[2] / "tools" / "import_hf.py"
WORD = "bert.embeddings.word_embeddings.weight"
QUERY = "bert.encoder.layer.0.attention.self.query.weight"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """model_type -> a folder that can be imported; it is not to be changed."""
    root, folders = tmp_path_factory.mktemp("published"), {}

    def get(model_type):
        if model_type not in folders:
            folders[model_type] = root / model_type
            published.make(folders[model_type], model_type)
        return folders[model_type]

    return get


@pytest.fixture(autouse=True, scope="module")
def shapes_once():
    """Tracing a model takes longer than all that is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "shapes", functools.cache(weights.shapes))
        yield


@pytest.fixture
def copied(made, tmp_path):
    """model_type -> (a folder of the test's own, its config, its tensors)."""

    def get(model_type):
        folder = tmp_path / model_type
        shutil.copytree(made(model_type), folder)
        config = json.loads((folder / "config.json").read_bytes())
        return folder, config, safetensors.numpy.load_file(folder / SINGLE)

    return get


def refused(folder, message):
    """Whether an import ends in one line with `message` and leaves nothing; returns the line."""
    out = Path(folder).parent / "out"
    with pytest.raises(UserError, match=message) as caught:
        published.import_folder(folder, out)
    assert "\n" not in str(caught.value)
    assert not list(out.parent.glob("out*"))
    return str(caught.value)


def outcome(folder):
    """The tensors that a folder is imported from, or "refused"; no exception but one line."""
    try:
        return set(from_hf.check(str(folder)).files.values())
    except UserError as error:
        return "refused" if "\n" not in str(error) else str(error)


def with_header(file, change):
    """Rewrites the header of a safetensors file."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def split(folder, tensors, names, doubled=()):
    """Turns a folder into one of two shards, the first with `names`, `doubled` in both."""
    shards = [
        {k: v for k, v in tensors.items() if k in names or k in doubled},
        {k: v for k, v in tensors.items() if k not in names},
    ]
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for file, shard in zip(files, shards, strict=True):
        safetensors.numpy.save_file(shard, folder / file)
    (folder / SINGLE).unlink()
    weight_map = {name: files[name not in names] for name in tensors}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


@pytest.mark.parametrize("model_type", published.MODELS)
def test_what_is_made_here_is_imported(model_type, made, tmp_path, capfd):
    read = published.import_folder(made(model_type), tmp_path / "out")
    assert essence(read.model) == essence(published.model_of(model_type))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "checkpoints",
        "config.json",
        "tokenizer",
    ]
    assert not (tmp_path / "out.partial").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1, -1000])
def test_a_file_cut_short(size, copied):
    folder, _, _ = copied("bert")
    file = folder / SINGLE
    file.write_bytes(file.read_bytes()[:size])
    refused(folder, r"model.safetensors: damaged or cut short \(.*\); copy or download")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json is not there; give a whole folder"),
        (b"{", r"config.json: cannot be read \(.*\); copy the folder again"),
        (b"\xff\xfe\xff", "config.json: cannot be read"),
        (b"[" * 100_000, "config.json: cannot be read"),
        (b"[1]", "no JSON object"),
        (b"{}", "model_type=None is not supported; bert, roberta"),
        (b'{"model_type": "bart2"}', "model_type='bart2' is not supported"),
        (b'{"model_type": ["bert"]}', r"model_type=\['bert'\] is not supported"),
        (b'{"model_type": "bert"}', "config.json: hidden_size of a bert model is missing"),
    ],
)
def test_no_config(content, message, copied):
    folder, _, _ = copied("bert")
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    refused(folder, message)


def test_neither_folder_nor_weights(copied):
    folder, _, _ = copied("bert")
    refused(folder / "none", "no such folder; give one with config.json and safetensors")
    refused(folder / SINGLE, "no such folder")
    (folder / SINGLE).unlink()
    refused(folder, "no weights .* are there")
    (folder / "pytorch_model.bin").write_bytes(b"")
    refused(folder, r"pytorch_model.bin is a pickle, .*; save the model as safetensors")


def test_pickles_beside_safetensors_are_left_alone(copied, tmp_path):
    folder, _, tensors = copied("bert")
    (folder / "pytorch_model.bin").write_bytes(b"\x80no pickle at all")
    assert set(published.import_folder(folder, tmp_path / "out").files.values()) == set(tensors)


def test_missing_and_unknown_tensors(copied):
    folder, _, tensors = copied("bert")
    more = tensors | {QUERY + "s": tensors[QUERY]}
    published.rewrite(folder, tensors=more)
    refused(folder, "query.weights is no tensor of a BertForMaskedLM")
    del more[QUERY]
    published.rewrite(folder, tensors=more)
    refused(folder, rf"{QUERY} is missing: .* \(there is {QUERY}s\)")
    del more[WORD], more[QUERY + "s"]
    published.rewrite(folder, tensors=more)
    refused(folder, " and 1 more are missing")


def test_what_is_no_part_of_the_model_may_be_of_any_type(copied, tmp_path):
    folder, _, tensors = copied("bert")
    more = {
        "bert.embeddings.position_ids": np.arange(12)[None],
        "bert.pooler.dense.weight": np.zeros((16, 16), np.int8),
    }
    published.rewrite(folder, tensors=tensors | more)
    published.import_folder(folder, tmp_path / "out")


@pytest.mark.parametrize("name", [WORD, QUERY])
def test_wrong_shapes(name, copied):
    folder, _, tensors = copied("bert")
    published.rewrite(folder, tensors=tensors | {name: tensors[name].T.copy()[:, :-1]})
    refused(folder, rf"{name} is \[16, \d+\], by config.json it has to be \[\d+, 16\]")


def test_a_tensor_under_two_names(copied):
    folder, _, tensors = copied("bert")
    bare = QUERY.removeprefix("bert.")
    published.rewrite(folder, tensors=tensors | {bare: tensors[QUERY]})
    refused(folder, f"{QUERY} is there twice, as ({QUERY} and {bare}|{bare} and {QUERY})")
    old = "bert.embeddings.LayerNorm.gamma"
    published.rewrite(folder, tensors=tensors | {old: np.ones(16, np.float32)})
    refused(folder, "bert.embeddings.LayerNorm.weight is there twice, as .*LayerNorm.gamma")


def test_tied_tensors_that_differ(copied):
    folder, _, tensors = copied("bert")
    other = {"cls.predictions.decoder.bias": np.ones(published.VOCAB, np.float32)}
    published.rewrite(folder, tensors=tensors | other)
    refused(folder, "decoder.bias and cls.predictions.bias differ, but are one and the same")


@pytest.mark.parametrize("equal", [True, False])
def test_logits_of_their_own_are_found_in_the_file(equal, copied, tmp_path):
    folder, config, tensors = copied("gpt2")
    assert config["tie_word_embeddings"]
    head = tensors["transformer.wte.weight"] + (0 if equal else 1)
    published.rewrite(folder, tensors=tensors | {"lm_head.weight": head.astype(np.float32)})
    assert published.import_folder(folder, tmp_path / "out").model.tie_embeddings == equal


def test_shards(copied, tmp_path):
    folder, _, tensors = copied("bert")
    weight_map = split(folder, tensors, {WORD, QUERY})
    published.import_folder(folder, tmp_path / "done")

    def with_index(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / INDEX).write_text(text)

    with_index({"weight_map": weight_map | {"lost.weight": weight_map[WORD]}})
    refused(folder, "lost.weight is of the index in none of the files")
    for name in ("model-00003-of-00002.safetensors", "", "..", "x" * 5000):
        with_index({"weight_map": weight_map | {WORD: name}})
        refused(folder, r"index.json: (.*, which it names, is not there|damaged)")
    outside = tmp_path / "another.safetensors"
    shutil.copy(folder / weight_map[WORD], outside)
    for name in ("../another.safetensors", str(outside)):
        with_index({"weight_map": weight_map | {WORD: name}})
        refused(folder, f"index.json: {name!r}, which it names, is not there")
    for content in ("", "[]", {}, {"weight_map": []}, {"weight_map": {WORD: 5}}, "[" * 100_000):
        with_index(content)
        refused(folder, r"index\.json: (damaged|5, which it names, is not there)")


def test_a_tensor_in_two_shards(copied):
    folder, _, tensors = copied("bert")
    split(folder, tensors, {WORD}, doubled={QUERY})
    refused(folder, f"{QUERY} is in both model-00001.* and model-00002")


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.bool_, ml_dtypes.float8_e4m3fn])
def test_quantised_weights(kind, copied):
    folder, _, tensors = copied("bert")
    published.rewrite(folder, tensors=tensors | {QUERY: tensors[QUERY].astype(kind)})
    refused(folder, rf"{QUERY} holds \w+ numbers; weights in float32")
    same = {name: tensors[WORD].astype(kind) for name in (WORD, "cls.predictions.decoder.weight")}
    published.rewrite(folder, tensors=tensors | same)
    refused(folder, r"holds \w+ numbers")


@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats(kind, copied):
    folder, _, tensors = copied("bert")
    published.rewrite(folder, tensors={k: v.astype(kind) for k, v in tensors.items()})
    np.testing.assert_array_equal(from_hf.check(str(folder))(QUERY), tensors[QUERY].astype(kind))


_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0}


@pytest.mark.parametrize(
    ("model_type", "keys", "message"),
    [
        ("llama", {"rope_parameters": _YARN}, "rope_type='yarn' .* is not supported"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type='linear'"),
        ("llama", {"rope_parameters": _LLAMA3 | {"low_freq_factor": 2.0}}, "low_freq_factor 1"),
        ("llama", {"rope_scaling": {"rope_type": "llama3"}}, "factor is missing"),
        ("llama", {"partial_rotary_factor": 0.5}, "a part of each head is not supported"),
        ("llama", {"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window=True of a qwen3 model"),
        ("bert", {"position_embedding_type": "relative_key"}, "='relative_key' of a bert model"),
        ("bert", {"is_decoder": True}, "is_decoder=True"),
        ("bert", {"hidden_act": "mish"}, "hidden_act='mish' is not supported, only 'gelu',"),
        ("roberta", {"hidden_act": "relu"}, "hidden_act='relu' is not supported, only 'gelu' are"),
        ("bart", {"scale_embedding": True}, "scale_embedding=True"),
        ("bart", {"decoder_attention_heads": 4}, "heads=2 and decoder_attention_heads=4 differ"),
        ("bart", {"decoder_ffn_dim": 4}, "encoder_ffn_dim=24 and decoder_ffn_dim=4 differ"),
        ("modernbert", {"decoder_bias": False}, "decoder_bias=False"),
        ("modernbert", {"classifier_activation": "relu"}, "='relu' differ"),
        ("modernbert", {"layer_types": ["sliding_attention"] * 5}, r"in layers \[\] of 5"),
        ("modernbert", {"layer_types": ["full_attention"] * 4}, r"in layers \[0, 1, 2, 3\] of 5"),
        ("modernbert", {"rope_parameters": {"sliding_attention": _LLAMA3}}, "stretched"),
        ("modernbert", {"rope_parameters": {"full_attention": _LLAMA3}}, "stretched"),
        ("modernbert", {"num_hidden_layers": 10**12}, "layers .* of 1000000000000 is not"),
        ("t5", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj='gated-mish'"),
        ("t5", {"feed_forward_proj": "bilinear-gelu"}, "feed_forward_proj='bilinear-gelu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx=True of a gpt2"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "layernorm=True"),
    ],
)
def test_what_no_block_of_ours_computes(model_type, keys, message, copied):
    folder, config, _ = copied(model_type)
    published.rewrite(folder, config | keys)
    refused(folder, f"/config.json: .*{message}")


@pytest.mark.parametrize("value", [None, 0, -1, 10**9, 10**30, 2.5, "16", True, [16], {}])
def test_sizes(value, copied):
    folder, config, _ = copied("bert")
    for name in ("hidden_size", "vocab_size", "num_hidden_layers", "max_position_embeddings"):
        published.rewrite(folder, config | {name: value})
        refused(folder, "config.json")


@pytest.mark.parametrize("model_type", published.MODELS)
def test_keys_without_a_default(model_type, copied):
    folder, config, _ = copied(model_type)
    needed = []
    for name in config:
        published.rewrite(folder, {k: v for k, v in config.items() if k != name})
        if outcome(folder) == "refused":
            needed.append(name)
    assert {"model_type", "vocab_size"} < set(needed)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", '"1e-12"', "0", "-1"])
def test_numbers_that_are_none(text, copied):
    folder, config, _ = copied("bert")
    content = json.dumps(config | {"layer_norm_eps": "HERE"}).replace('"HERE"', text)
    (folder / "config.json").write_text(content)
    refused(folder, r"config.model.norm_epsilon=.* \((float|str|int)\)")


def test_no_key_of_the_config_escapes(copied):
    few = (None, 0, 10**30, "x", [[]], {})
    many = (*few, True, -1, 7, 0.5, float("nan"), [], {"a": 1})
    for model_type, values in (("bert", many), ("modernbert", few)):
        folder, config, tensors = copied(model_type)
        for name in config:
            for value in values:
                published.rewrite(folder, config | {name: value})
                assert outcome(folder) in (set(tensors), "refused")


def test_no_byte_of_a_header_escapes(copied):
    folder, _, tensors = copied("bert")
    content, rng = (folder / SINGLE).read_bytes(), random.Random(0)
    size, found = 8 + int.from_bytes(content[:8], "little"), []
    for at in [*range(8), *(rng.randrange(8, size) for _ in range(50))]:
        damaged = bytearray(content)
        damaged[at] ^= 1 << rng.randrange(8)
        (folder / SINGLE).write_bytes(damaged)
        found.append(outcome(folder))
        assert found[-1] in (set(tensors), "refused")
    assert "refused" in found


def test_a_header_that_is_json_of_another_kind(copied):
    folder, _, _ = copied("bert")
    content = (folder / SINGLE).read_bytes()
    for name, entry in [
        (QUERY, {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}),
        (QUERY, {"dtype": "F32", "shape": [2**63, 2**63], "data_offsets": [0, 4]}),
        (QUERY, {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}),
        ("more", {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
        ("more", {"dtype": "F4", "shape": [0], "data_offsets": [0, 0]}),
    ]:
        (folder / SINGLE).write_bytes(content)
        with_header(folder / SINGLE, lambda header, n=name, e=entry: header.update({n: e}))
        refused(folder, "model.safetensors: damaged|is no tensor of a Bert")


def test_outputs(made, tmp_path):
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    file.write_text("mine")
    (full / "mine").write_text("mine")
    for path, message in [
        (full, "full: holds something already; choose another output or delete it"),
        (file, "file: is a file; choose another output"),
        (file / "below", r"below: cannot be written \(Not a directory\); choose a folder"),
    ]:
        with pytest.raises(UserError, match=message):
            published.import_folder(made("bert"), path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "mine"]
    full.joinpath("mine").unlink()
    published.import_folder(made("bert"), full)


def test_a_defect_leaves_nothing_either(made, tmp_path, monkeypatch):
    def fail(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(from_hf.workdir, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        published.import_folder(made("bert"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["family", "model.hidden_size", "model.vocab_size", "model.window"]
)
def test_fields_of_the_model_are_the_folders(name, made, tmp_path):
    with pytest.raises(UserError, match=f"config.{name} is what the imported folder says"):
        published.import_folder(made("bert"), tmp_path / "out", {name: 3})
    with pytest.raises(UserError, match=r"data.seq_len=13 is longer than model.max_positions=12"):
        published.import_folder(made("bert"), tmp_path / "out", {"data.seq_len": 13})
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_is_the_users(made):
    read = from_hf.check(str(made("bert")))
    overrides = {"optimizer.learning_rate": 1e-5, "model.dropout": 0.25, "data.seq_len": 8}
    config = from_hf.config_of(read, overrides)
    flat = fields_lib.flatten(fields_lib.to_dict(config))
    assert overrides.items() <= flat.items()


def test_the_tool_ends_with_one_line(copied, tmp_path):
    folder, _, tensors = copied("bert")
    del tensors[WORD]
    published.rewrite(folder, tensors=tensors)
    command = [sys.executable, TOOL, f"--input={folder}", f"--output={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {folder}: {WORD} is missing: ")
    assert done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["bert"]
