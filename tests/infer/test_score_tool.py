"""From a workdir and JSON lines to JSON lines with scores; what goes wrong on the way."""

import dataclasses
import gzip
import io
import json
import subprocess
import sys
import uuid
from pathlib import Path

import jax
import numpy as np
import pytest
import small_run
from random_run import make_run, make_tokenizer

from lmjax import config as config_lib
from lmjax import families, paths
from lmjax.data import output
from lmjax.data.tokenizer import IdsTokenizer
from lmjax.errors import UserError
from lmjax.infer import jsonl
from lmjax.infer.examples import Framing
from lmjax.infer.score import Example, Score
from lmjax.train import copied_checkpoints, trained
from lmjax.train.copied_checkpoints import CopiedCheckpoints

TOOL = Path(__file__).parents[2] / "tools" / "score.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a decoder."""
    folder = tmp_path_factory.mktemp("score")
    make_run(folder / "run", "gpt2", "clm", make_tokenizer(folder / "tok"), (2, 3))
    return folder / "run"


def snapshot(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def reference(model, ids):
    """Sum of log p of ids[1:], float64."""
    ids = np.asarray(ids, np.int32)
    inputs = ids[None, :-1]
    batch = {"inputs": inputs, "segment_ids": np.ones_like(inputs)}
    batch["positions"] = np.arange(inputs.shape[1], dtype=np.int32)[None]
    logits_TV = np.asarray(model.model.apply({"params": model.params}, batch)[0], np.float64)
    log_z_T = np.log(np.exp(logits_TV).sum(-1))
    return float((logits_TV[np.arange(len(ids) - 1), ids[1:]] - log_z_T).sum())


def test_lines_come_back_with_their_scores(run, tmp_path):
    lines = [
        {"id": 1, "text": "The whale, the white whale!", "more": {"a": [None, "naïve"]}},
        {"token_ids": [300, 7, 301], "half": "\ud800"},
        {"text": ""},
        {"token_ids": [5], "logprob": "old"},
    ]
    content = "\ufeff" + "\n\n".join(json.dumps(line) for line in lines)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    before = snapshot(run)
    command = [sys.executable, TOOL, f"--workdir={run}", "--batch_tokens=64"]
    command += [f"--input={tmp_path / 'in.jsonl.gz'}", f"--output={tmp_path / 'out.jsonl'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(run) == before
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    model = trained.load(str(run), devices=jax.devices()[:1])
    ids = [model.tokenizer.encode(lines[0]["text"]), lines[1]["token_ids"]]
    for line, sequence, mine in zip(lines, ids, written, strict=False):
        wanted = {"logprob": pytest.approx(reference(model, sequence), abs=1e-4)}
        assert mine == line | wanted | {"num_tokens": len(sequence) - 1}
    for line, mine in zip(lines[2:], written[2:], strict=True):
        assert mine == line | {"logprob": 0.0, "num_tokens": 0}
    assert "gpt2 at step 3" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"{tmp_path / 'out.jsonl'}: 4 lines, {len(ids[0]) + 1} tokens, ")
    assert last.endswith(" nats per token")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl.gz", "out.jsonl"]


def test_the_tool_ends_with_one_line(tmp_path):
    (tmp_path / "in.jsonl").write_text("{}\n")
    command = [sys.executable, TOOL, f"--workdir={tmp_path / 'none'}"]
    command += [f"--input={tmp_path / 'in.jsonl'}", f"--output={tmp_path / 'out.jsonl'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "none holds no run" in done.stderr


def test_a_step_is_chosen_while_a_run_writes(run):
    writing = run / "checkpoints" / "4.orbax-checkpoint-tmp"
    writing.mkdir()
    newest, older = (trained.load(str(run), step=step).step for step in (None, 2))
    assert (newest, older) == (3, 2)
    assert writing.exists()
    writing.rmdir()
    with pytest.raises(UserError, match="no checkpoint of step 1; there is 2, 3"):
        trained.load(str(run), step=1)


def test_parameters_are_those_of_the_whole_state(run):
    model = trained.load(str(run), dtype="bfloat16", overrides={"mesh.preset": "fsdp"})
    mine = jax.device_get(model.params)
    small_run.assert_same_bits(mine, small_run.parameters(run / "checkpoints" / "3"))
    assert {leaf.sharding.mesh for leaf in jax.tree.leaves(model.params)} == {model.mesh}
    assert dict(model.mesh.shape)["fsdp"] == jax.device_count()
    assert model.model.dtype == "bfloat16"


def test_neither_run_nor_checkpoint(run, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        trained.load(str(tmp_path))
    for name in ("config.json", "tokenizer"):
        (tmp_path / name).symlink_to(run / name)
    with pytest.raises(UserError, match="holds no checkpoint; train first"):
        trained.load(str(tmp_path))
    assert not (tmp_path / "checkpoints").exists()


def test_the_decoder_starts_with_what_tokenizer_or_family_names(tmp_path):
    tokenizer = IdsTokenizer(512, {"pad": 3, "decoder_start": 0})
    make_run(tmp_path, "t5", "span_corruption", tokenizer, (0,))
    load = lambda: trained.load(str(tmp_path), devices=jax.devices()[:1])
    assert load().decoder_start_id == 0
    IdsTokenizer(512, {"pad": 3}).save(tmp_path / "tokenizer")
    assert load().decoder_start_id == 3
    IdsTokenizer(512, {"eos": 3}).save(tmp_path / "tokenizer")
    with pytest.raises(UserError, match="neither decoder_start nor pad"):
        load()


def test_texts_are_framed_as_in_training(run):
    model = trained.load(str(run), devices=jax.devices()[:1])
    tokenizer = model.tokenizer
    ids = tokenizer.encode("Call me\nIshmael").tolist()

    def frame(family, objective):
        config = config_lib.ModelConfig(**families.FAMILIES[family].BASE)
        raw = {"model": config, "objective": {"name": objective}, "data": {"seq_len": 64}}
        run = config_lib.Config(**raw)
        used = dataclasses.replace(model, config=run).frame
        return Framing(config, 640, tokenizer, used, tokenizer.pad_id)

    example = frame("bert", "mlm")({"text": "Call me\r\nIshmael"})
    assert example.inputs.tolist() == [tokenizer.bos_id, *ids, tokenizer.eos_id]
    assert (example.targets.tolist(), example.mask_id) == (ids, tokenizer.mask_id)
    for objective in ("span_corruption", "prefix_lm", "ul2"):
        example = frame("t5", objective)({"source": "", "target": "Call me\nIshmael"})
        assert example.source.tolist() == [tokenizer.eos_id]
        assert example.targets.tolist() == [*ids, tokenizer.eos_id]
        assert example.inputs.tolist() == [tokenizer.pad_id, *ids]
    example = frame("bart", "denoising")({"source": "", "target": "Call me\nIshmael"})
    assert example.source.tolist() == [tokenizer.bos_id, tokenizer.eos_id]
    assert example.targets.tolist() == [tokenizer.bos_id, *ids, tokenizer.eos_id]
    assert example.inputs.tolist() == [tokenizer.pad_id, tokenizer.bos_id, *ids]


def count(record):
    """A stand-in for framing."""
    if "n" not in record:
        raise UserError("has no field n")
    return Example(np.zeros(record["n"], np.int32), np.zeros(record["n"], np.int32))


def scorer(examples, on_batch):
    on_batch(len(examples), len(examples))
    return [Score(-float(len(e.targets)), len(e.targets)) for e in examples]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"not JSON \("),
        ('"text"', "no JSON object"),
        ("{}", "has no field n"),
        ('{"n": "\\ud800"', "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_named_and_leaves_nothing(line, message, tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text(f'{{"n": 1}}\n\n{line}\n')
    with (
        pytest.raises(UserError, match=rf"in.jsonl:3: {message}") as caught,
        output.file(str(tmp_path / "out.jsonl")) as stream,
    ):
        jsonl.score(jsonl.find(str(file)), stream, count, scorer)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [file]


def test_a_score_that_is_no_number_is_refused(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n')
    diverged = lambda examples, on_batch: [Score(float("nan"), 1)]
    with pytest.raises(UserError, match=r"in.jsonl:1: .* nan; the training has diverged"):
        jsonl.score([str(tmp_path / "in.jsonl")], io.BytesIO(), count, diverged)


def test_long_files_go_through_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "_CHUNK_LINES", 3)
    written = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file in written:
        file.write_text("".join(f'{{"n": {n}}}\n' for n in range(5)))
    stream, sizes, told = io.BytesIO(), [], []

    def watched(examples, on_batch):
        sizes.append(len(examples))
        return scorer(examples, on_batch)

    names = jsonl.find(f"{written[0]},{written[1]}")
    summary = jsonl.score(names, stream, count, watched, lambda *news: told.append(news))
    assert sizes == [3, 3, 3, 1]
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["n"] for line in lines] == [*range(5)] * 2
    assert (summary.num_lines, summary.num_tokens, summary.logprob) == (10, 20, -20.0)
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == sum(file.stat().st_size for file in written)


def test_outputs_that_cannot_be_written(tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text("{}")
    with pytest.raises(UserError, match="is the input, too"):
        output.check_apart(f"{tmp_path}/../{tmp_path.name}/in.jsonl", [str(file)])
    for path, message in [
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "out", "cannot be written"),
        (file / "out", "cannot be written"),
    ]:
        with pytest.raises(UserError, match=message), output.file(str(path)):
            raise AssertionError
    (tmp_path / "in.txt").write_text("text")
    with pytest.raises(UserError, match=r"in.txt: not JSON lines"):
        jsonl.find(str(tmp_path))


def test_urls(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    url = f"memory://{uuid.uuid4().hex}"
    with pytest.raises(KeyError), output.file(f"{url}/out.jsonl") as stream:
        raise KeyError
    assert paths.find(url) == []
    paths.write_bytes(f"{url}/in.jsonl", b'{"n": 2}\n')
    with output.file(f"{url}/out.jsonl.gz") as stream:
        jsonl.score(jsonl.find(f"{url}/in.jsonl"), stream, count, scorer)
    written = gzip.decompress(paths.read_bytes(f"{url}/out.jsonl.gz"))
    assert json.loads(written) == {"n": 2, "logprob": -2.0, "num_tokens": 2}

    names = [n for n in paths.files_below(run) if n.startswith(("tokenizer/", "config.json"))]
    paths.upload(run, f"{url}/run", names)
    checkpoints = CopiedCheckpoints(f"{url}/run/checkpoints", keep=2)
    for step in (1, 2):
        checkpoints.save(step, {"params": {"a": jax.numpy.arange(3.0) * step}}, {})
    checkpoints.close()
    paths.write_bytes(f"{url}/run/checkpoints/3/state/torn", b"x")
    with copied_checkpoints.reading(f"{url}/run/checkpoints", 1) as (reader, step):
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = {"a": jax.ShapeDtypeStruct((3,), "float32")}
        assert reader.restore_params(step, like, {"a": here})["a"].tolist() == [0.0, 1.0, 2.0]
    assert "run/checkpoints/3/state/torn" in paths.find(url)
    with pytest.raises(UserError, match=r"memory://.* no checkpoint of step 3; there is 1, 2"):
        trained.load(f"{url}/run", step=3)
    assert not any((tmp_path / ".cache" / "lmjax").glob("checkpoint_*"))
