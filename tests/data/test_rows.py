import dataclasses
import os
import pickle

import numpy as np
import pytest
from absl import flags
from random_text import make_text, write_jsonl

from lmjax.batch import Ids, num_real_tokens
from lmjax.data import pipeline, plan, prepare
from lmjax.data.rows import PlannedRows, StreamRows
from lmjax.data.store import Store
from lmjax.errors import UserError
from lmjax.objectives.clm import CausalLM
from lmjax.objectives.mlm import MaskedLM
from lmjax.objectives.span_corruption import SpanCorruption

IDS = Ids(num_ids=1000, num_rows=1152)
OBJECTIVES = [
    CausalLM(seq_len=64),
    MaskedLM(seq_len=64, ids=IDS),
    SpanCorruption(seq_len=64, ids=IDS),
]
FIELDS = ("inputs", "positions", "targets", "weights", "content_weights")


@pytest.fixture(scope="module")
def store(tmp_path_factory, tokenizer_path):
    """Short documents, some too long for any row."""
    folder, rng = tmp_path_factory.mktemp("rows"), np.random.default_rng(3)
    num_words = np.where(rng.random(600) < 0.03, 150, rng.integers(1, 25, 600))
    write_jsonl(folder / "text.jsonl", [make_text(rng, int(n)) for n in num_words])
    output = str(folder / "store")
    files = [str(folder / "text.jsonl")]
    prepare.prepare(files, tokenizer_path, output, eval_fraction=0.0, num_workers=1)
    return Store.open(output, "train")


def planned(store, objective, packing="pack"):
    made = plan.ensure(store, packing, plan.sizes(objective), "unused")
    return PlannedRows(store, objective, made)


def whole(rows):
    """All rows in order."""
    index = np.arange(len(rows))
    return rows.make(0, index * 0, index)


def texts(batch):
    """{(fields of a document's segment)} of every side, whatever row it is in."""
    found = []
    for r in range(len(batch["inputs"])):
        for segment in range(1, batch["segment_ids"][r].max() + 1):
            here = batch["segment_ids"][r] == segment
            if not here.any():  # too short to hide something of it
                continue
            text = {"inputs": batch["inputs"][r][here], "positions": batch["positions"][r][here]}
            rest = here
            if "predict_at" in batch:
                first = np.flatnonzero(here)[0]
                used = batch["weights"][r] > 0
                rest = used & here[batch["predict_at"][r]]
                text["predict_at"] = batch["predict_at"][r][rest] - first
            for name in ("targets", "weights", "content_weights"):
                text[name] = batch[name][r][rest]
            if "enc_inputs" in batch:
                here = batch["enc_segment_ids"][r] == segment
                text["enc_inputs"] = batch["enc_inputs"][r][here]
                text["enc_positions"] = batch["enc_positions"][r][here]
            found.append(tuple((name, field.tobytes()) for name, field in sorted(text.items())))
    return sorted(found)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_packed_document_is_what_it_is_alone(store, objective):
    packed, alone = (whole(planned(store, objective, how)) for how in ("pack", "document"))
    assert texts(packed) == texts(alone)
    assert alone["segment_ids"].max() == 1
    assert packed["segment_ids"].max() > 3
    # One side of the rows is full; short texts, whose counts are rounded, leave room on the other.
    fill = [(f > 0).mean() for name, f in packed.items() if name.endswith(("segment_ids", "ghts"))]
    assert max(fill) > 0.93
    assert len(packed["inputs"]) < 0.75 * len(alone["inputs"])


def test_every_token_is_predicted_once_from_the_one_before_it(store):
    batch = whole(planned(store, OBJECTIVES[0]))
    stream = store.read(np.array([0]), store.num_tokens)[0]
    before = np.concatenate([stream[-1:], stream[:-1]])
    real = batch["weights"] > 0
    got = np.stack([batch["inputs"][real], batch["targets"][real]])
    assert np.array_equal(np.unique(got, axis=1), np.unique([before, stream], axis=1))
    assert real.sum() == store.num_tokens
    counts = np.bincount(got[1], minlength=IDS.num_rows)
    assert np.array_equal(counts, np.bincount(stream, minlength=IDS.num_rows))


def test_no_document_is_cut_that_fits(store):
    for objective in OBJECTIVES:
        rows = planned(store, objective)
        _, start, length = rows.plan.parts(np.arange(len(rows)))
        bounds = store.bounds(0, store.num_documents)
        text = np.diff(bounds) - objective.closes_rows
        parts = dict(zip(start.tolist(), length.tolist(), strict=True))
        assert len(parts) == len(start)
        for begin, size in zip(bounds, text, strict=False):
            cut = range(0, size, objective.window_stride)
            got = [parts.pop(begin + offset) for offset in cut]
            assert got == [min(objective.window_stride, size - offset) for offset in cut]
        assert not parts


def test_masked_rows_frame_every_document(store):
    batch = whole(planned(store, OBJECTIVES[1]))
    first = (batch["positions"] == 0) & (batch["segment_ids"] > 0)
    assert (batch["inputs"][first] == IDS.bos).all()
    last = np.zeros_like(first)
    last[:, :-1] = np.diff(batch["segment_ids"], axis=1) != 0
    last[:, -1] = True
    last &= batch["segment_ids"] > 0
    assert (batch["inputs"][last] == IDS.eos).all()
    assert ((batch["inputs"] == IDS.eos) == last).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rows_do_not_depend_on_company_workers_or_place(store, objective):
    flags.FLAGS(["test"], known_only=True)
    rows = planned(store, objective)
    batches = pipeline.TrainBatches((rows,), 3, 16, np.arange(16))
    for step, batch in enumerate(pipeline.iterate(batches, 2, 5, num_workers=2), 2):
        expected = batches(step)
        for name in expected:
            assert batch[name].tobytes() == expected[name].tobytes(), name
    some = dataclasses.replace(batches, rows=np.array([3, 11]))(4)
    for name, field in batches(4).items():
        assert np.array_equal(field[[3, 11]], some[name]), name
    padding = rows.make(0, np.zeros(1, int), np.array([len(rows)]))
    assert num_real_tokens(padding) == padding["weights"].sum() == 0
    assert rows.documents(0) == sorted(rows.documents(0))


def test_a_plan_is_made_once_and_told_from_others(store):
    lines = []
    sizes = plan.sizes(MaskedLM(seq_len=100, ids=IDS))
    first = plan.ensure(store, "pack", sizes, "unused", lines.append)
    assert "99." in lines[-1] or "98." in lines[-1] or "97." in lines[-1]
    count = len(lines)
    again = plan.ensure(store, "pack", sizes, "unused", lines.append)
    assert again.path == first.path == pickle.loads(pickle.dumps(first)).path
    assert len(lines) == count
    other = plan.ensure(store, "document", sizes, "unused")
    assert other.path != first.path
    assert os.path.dirname(other.path) == os.path.join(store.path, "plans")
    file = os.path.join(first.path, "start.bin")
    os.truncate(file, os.path.getsize(file) - 8)
    with pytest.raises(UserError, match=r"start\.bin: not as it was written; delete"):
        plan.ensure(store, "pack", sizes, "unused")


def test_a_large_plan_is_read_as_a_small_one(store, monkeypatch):
    made = plan.ensure(store, "pack", plan.sizes(OBJECTIVES[0]), "unused")
    rows = np.array([5, 0, made.num_rows, made.num_rows - 1])
    monkeypatch.setattr(plan, "_MAPPED_BYTES", 0)
    for small, large in zip(made.parts(rows), plan.Plan(made.path).parts(rows), strict=True):
        assert np.array_equal(small, large)
        assert small.dtype == large.dtype


def test_a_store_that_cannot_be_written_leaves_its_plans_in_the_cache(store, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    made = plan.ensure(store, "pack", plan.sizes(CausalLM(seq_len=48)), str(tmp_path))
    assert made.path.startswith(str(tmp_path))


def test_a_row_of_the_stream_may_count_as_one_document(store):
    objective = OBJECTIVES[1]
    apart, joined = (StreamRows(store, objective, cross) for cross in (False, True))
    index = np.arange(20)
    a, b = (rows.make(0, index * 0, index) for rows in (apart, joined))
    assert a["segment_ids"].max() > 1
    assert set(np.unique(b["segment_ids"])) <= {0, 1}
    assert np.array_equal(b["positions"][0], np.arange(64))
    for name in ("inputs", "targets", "predict_at"):
        assert np.array_equal(a[name], b[name])
