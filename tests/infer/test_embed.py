"""Vectors of texts: pooling, files, neighbours; hidden states against transformers'."""

import functools
import json

import jax
import numpy as np
import published
import pyarrow.parquet as pq
import pytest
import stock_classes
import tool_run

from lmjax.data import files, output, tokenizer_training
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.errors import UserError
from lmjax.infer import embed, neighbours, vector_files
from lmjax.infer.embed import POOLINGS, TextFraming
from lmjax.infer.jsonl import Line
from lmjax.train import trained

LINES = ["Call me Ishmael.", "It was the best of times, " * 4, "the worst", "Call me  Ahab"]
WIDTH = 16


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """family -> workdir of a model with random weights."""
    root = tmp_path_factory.mktemp("runs")
    size = {"vocab_size": 400, "model_type": "bpe", "sample_bytes": 50_000}
    tokenizer_training.train(files.find_files("bundled:corpus_small"), root, **size)
    tokenizer = tokenizer_lib.load(root)
    for family in ("bert", "gpt2", "t5"):
        more = {"max_positions": 128} if family != "t5" else {}
        published.make_run(root / family, family, tokenizer, **more)
    return root


@functools.cache
def load(workdir, devices=1):
    return trained.load(str(workdir), devices=jax.devices()[:devices])


def embedded(model, pooling, records, batch_tokens=128):
    frame = TextFraming(model.framing, pooling)
    embedder = embed.Embedder(
        model.model, model.params, model.batch_sharding, pooling=pooling, batch_tokens=batch_tokens
    )
    with model.context():
        return embedder([frame(record) for record in records])


@pytest.mark.parametrize(
    ("family", "pooling", "pooled"),
    [
        ("bert", "mean", np.mean),
        pytest.param("bert", "max", np.max, marks=pytest.mark.slow),
        ("gpt2", "last", lambda states, axis: states[-1]),
        pytest.param("t5", "mean", np.mean, marks=pytest.mark.slow),
    ],
)
def test_what_a_vector_is_made_of(runs, family, pooling, pooled):
    model, texts = load(runs / family), [LINES[0], *LINES[2:]]  # of one shape
    records = [{"text": text} for text in texts]
    states = embedded(model, "tokens", records)
    encode = model.tokenizer.encode
    assert [len(state) for state in states] == [len(encode(text)) for text in texts]
    for state, vector in zip(states, embedded(model, pooling, records), strict=True):
        np.testing.assert_allclose(vector, pooled(state, axis=0), atol=1e-4)


@pytest.mark.slow
def test_neighbours_in_a_batch_change_nothing(runs):
    model, records = load(runs / "bert"), [{"text": text} for text in LINES[2:]]
    together = embedded(model, "mean", records)
    apart = [embedded(model, "mean", [record], batch_tokens=1)[0] for record in records]
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_the_first_id_and_ids_as_they_are(runs):
    model = load(runs / "bert")
    ids = model.framing.framed(model.tokenizer.encode(LINES[0])).tolist()
    records = [{"text": LINES[0]}, {"token_ids": ids}, {"text": ""}]
    first, same, empty = embedded(model, "cls", records)
    assert first.tolist() == same.tolist()
    assert not np.allclose(first, empty)
    assert embedded(load(runs / "gpt2"), "tokens", [{"text": ""}])[0].shape == (0, WIDTH)


@pytest.mark.slow
def test_eight_devices_give_what_one_gives(runs):
    records = [{"text": text} for text in LINES[2:] * 4]
    one, eight = (embedded(load(runs / "bert", n), "mean", records) for n in (1, 8))
    np.testing.assert_allclose(one, eight, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "pooling", "record", "message"),
    [
        ("bert", "mean", {"body": "a"}, "has no field text; set --text_key"),
        ("bert", "mean", {"text": "a", "token_ids": [5]}, "both text and token_ids"),
        ("bert", "mean", {"text": ""}, "no token of a text"),
        ("bert", "max", {"token_ids": [3, 1]}, "no token of a text"),
        ("bert", "mean", {"text": "again " * 200}, "the model has 128"),
        ("t5", "cls", {"text": "a"}, "trained without one; take --pooling=mean"),
        ("gpt2", "cls", {"text": "a"}, "trained without one"),
    ],
)
def test_what_is_refused(runs, family, pooling, record, message):
    with pytest.raises(UserError, match=message):
        TextFraming(load(runs / family).framing, pooling)(record)


def run_tool(runs, tmp_path, *flags, family="bert", lines=None):
    lines = lines or [{"text": text, "id": f"n{i}"} for i, text in enumerate(LINES)]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    where = [f"--workdir={runs / family}", f"--input={tmp_path / 'in.jsonl'}"]
    done = tool_run.run("embed", *where, *(flag.format(at=tmp_path) for flag in flags))
    assert done.code == 0, done.err
    return done.out


def test_files_of_vectors(runs, tmp_path):
    out = run_tool(runs, tmp_path, "--output={at}/v.npz", "--neighbours=2", "--normalize")
    found = np.load(tmp_path / "v.npz")
    assert set(found) == {"vectors", "ids", "neighbours", "similarities"}
    vectors = np.array(embedded(load(runs / "bert"), "mean", [{"text": t} for t in LINES]))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(found["vectors"], vectors, atol=1e-5)
    assert found["ids"].tolist() == ["n0", "n1", "n2", "n3"]
    cosine = vectors @ vectors.T - 2 * np.eye(4)
    assert found["neighbours"].tolist() == np.argsort(-cosine, axis=1)[:, :2].tolist()
    np.testing.assert_allclose(found["similarities"][:, 0], cosine.max(1), atol=1e-5)
    assert "4 lines, vectors of 16 numbers" in out
    assert LINES[0] in out

    run_tool(runs, tmp_path, "--output={at}/v.parquet", "--normalize")
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["text", "id", "vector"]
    assert table["text"].to_pylist() == LINES
    np.testing.assert_allclose(np.array(table["vector"].to_pylist()), vectors, atol=1e-5)


@pytest.mark.slow
def test_files_of_token_vectors(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("lmjax.infer.jsonl._CHUNK_LINES", 3)
    lines = [{"text": text} for text in (*LINES, "")]
    states = embedded(load(runs / "t5"), "tokens", lines)
    flags, kinds = ("--pooling=tokens",), {"family": "t5", "lines": lines}
    run_tool(runs, tmp_path, "--output={at}/v.npz", *flags, **kinds)
    found = np.load(tmp_path / "v.npz")
    assert set(found) == {"vectors", "ids", "token_ids", "offsets"}
    np.testing.assert_allclose(found["vectors"], np.concatenate(states), atol=1e-4)
    assert found["offsets"].tolist() == np.cumsum([0, *map(len, states)]).tolist()
    assert found["ids"].tolist() == [1, 2, 3, 4, 5]
    encode = load(runs / "t5").tokenizer.encode
    ids = [encode(line["text"]).tolist() for line in lines]
    assert found["token_ids"].tolist() == [i for line in ids for i in line]

    run_tool(runs, tmp_path, "--output={at}/v.parquet", *flags, **kinds)
    table = pq.read_table(tmp_path / "v.parquet")
    assert table["token_ids"].to_pylist() == ids
    mine = np.concatenate([np.reshape(v, (-1, WIDTH)) for v in table["vectors"].to_pylist()])
    np.testing.assert_allclose(mine, np.concatenate(states), atol=1e-4)


def test_lines_near_a_query(runs, tmp_path):
    out = run_tool(runs, tmp_path, "--query=the worst", "--neighbours=1")
    assert "1.000   3     the worst" in out
    assert "Ahab" not in out


@pytest.mark.parametrize(
    ("second", "message"), [({"a": "x"}, "several kinds"), ({"b": 1}, "field b is not in the fi")]
)
def test_lines_that_are_no_table(tmp_path, second, message):
    text = embed.Text(np.array([5], np.int32), np.array([True]))
    lines = [Line(f"in.jsonl:{i}", record, 0) for i, record in enumerate(({"a": 1}, second), 1)]
    path, vector = str(tmp_path / "v.parquet"), np.ones(WIDTH, np.float32)

    def write():
        with (
            output.file(path) as stream,
            vector_files.writing(path, stream, width=WIDTH, tokens=False) as file,
        ):
            for line in lines:
                file.add([line], [text], [vector])

    with pytest.raises(UserError, match=f"in.jsonl:2: .*{message}.* name the output .npz"):
        write()
    assert not list(tmp_path.iterdir())


def test_neighbours_in_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "_ROWS", 7)
    monkeypatch.setattr(neighbours, "_COLUMNS", 5)
    vectors = np.random.default_rng(0).normal(size=(33, 8)).astype(np.float32)
    index, similarity = neighbours.of_each(vectors, 4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T - 2 * np.eye(33)
    assert index.tolist() == np.argsort(-cosine, axis=1)[:, :4].tolist()
    np.testing.assert_allclose(similarity, -np.sort(-cosine, axis=1)[:, :4], atol=1e-6)
    assert neighbours.of_each(vectors[:2], 4)[0].tolist() == [[1], [0]]
    assert neighbours.of_each(vectors[:1], 4)[0].shape == (1, 0)


def test_the_tool_knows_all_poolings():
    done = tool_run.run("embed", "--pooling=none", "--workdir=a", "--input=b")
    assert f"<{'|'.join(POOLINGS)}>" in done.err


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # 2026-11: of third-party imports (torch, transformers)
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_hidden_states_of_transformers(runs, tmp_path, family):
    theirs = stock_classes.library()
    import torch

    published.export_folder(runs / family, tmp_path / "out")
    model, ours = theirs.AutoModel.from_pretrained(tmp_path / "out").eval(), load(runs / family)
    tokenizer = theirs.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = model.get_encoder() if family == "t5" else model
    for text, state in zip(
        LINES, embedded(ours, "tokens", [{"text": t} for t in LINES]), strict=True
    ):
        with torch.no_grad():
            encoded = tokenizer(text, return_tensors="pt")
            hidden = model(encoded["input_ids"]).last_hidden_state[0].numpy()
        before, behind = map(len, ours.frame)
        assert np.abs(hidden).max() > 0.5
        assert np.abs(state - hidden[before : len(hidden) - behind]).max() <= 1e-4
