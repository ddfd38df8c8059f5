import gc
import multiprocessing
import os
import weakref

import numpy as np
import pytest
from absl import flags

from lmjax import batch as batch_lib
from lmjax.batch import Ids
from lmjax.data import cache, pipeline
from lmjax.data.rows import StreamRows
from lmjax.data.store import Store
from lmjax.objectives.clm import CausalLM
from lmjax.objectives.mlm import MaskedLM
from lmjax.objectives.span_corruption import SpanCorruption

OBJECTIVE = CausalLM(seq_len=64)
IDS = Ids(num_ids=600, num_rows=768)
NOISY = [MaskedLM(seq_len=64, ids=IDS), SpanCorruption(seq_len=64, ids=IDS)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = cache.ensure_store(
        "bundled:corpus_small",
        tokenizer_path=None,
        vocab_size=600,
        model_type="bpe",
        character_coverage=0.9995,
        sample_bytes=1_000_000,
        text_key="text",
        text_split="file",
        eval_fraction=0.05,
        cache_dir=str(tmp_path_factory.mktemp("cache")),
        num_workers=1,
        log=lambda line: None,
    )
    return Store.open(folder, "train")


def batches(store, size=16, rows=None, seed=0, objective=OBJECTIVE):
    rows = np.arange(size) if rows is None else rows
    return pipeline.TrainBatches((StreamRows(store, objective),), seed, size, rows)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_workers_change_no_byte(store, num_workers):
    flags.FLAGS(["test"], known_only=True)
    make = batches(store)
    got = list(pipeline.iterate(make, 3, 10, num_workers))
    assert len(got) == 7
    for step, batch in enumerate(got, 3):
        assert_equal(batch, make(step))


def test_queues_of_before_are_gone_when_workers_start(store):
    """On CPython 3.12 they warn when the collector meets them while new ones are registered."""
    flags.FLAGS(["test"], known_only=True)
    gc.disable()
    try:
        queue = multiprocessing.get_context("spawn").Queue()
        queue.itself = queue
        left = weakref.ref(queue)
        del queue
        pipeline.iterate(batches(store), 0, 1, num_workers=1)
        assert left() is None
    finally:
        gc.enable()


def test_an_epoch_shows_every_window_once_and_the_next_in_another_order(store):
    size, count = 16, len(StreamRows(store, OBJECTIVE))
    make = batches(store, size)
    steps = -(-2 * count // size)
    order = np.concatenate([make(step)["info/window"] for step in range(steps)])[: 2 * count]
    assert sorted(order[:count]) == sorted(order[count:]) == list(range(count))
    assert (order[:count] != order[count:]).mean() > 0.9
    assert (order[:count] != np.arange(count)).mean() > 0.9


@pytest.mark.parametrize("objective", [OBJECTIVE, *NOISY])
def test_hosts_share_the_rows_of_one_batch(store, objective):
    whole = batches(store, objective=objective)(5)
    for rows in (np.arange(8), np.array([1, 3, 15])):
        part = batches(store, rows=rows, objective=objective)(5)
        assert_equal(part, {name: field[rows] for name, field in whole.items()})


@pytest.mark.parametrize("objective", NOISY)
def test_noise_is_the_same_in_workers_and_new_in_each_epoch(store, objective):
    flags.FLAGS(["test"], known_only=True)
    make = batches(store, objective=objective)
    for step, batch in enumerate(pipeline.iterate(make, 3, 6, num_workers=2), 3):
        batch_lib.check(batch, objective.spec(16))
        assert_equal(batch, make(step))
    count = len(make.sources[0])
    whole = batches(store, size=count, objective=objective)  # a step is an epoch
    first, second = (whole(step) for step in (0, 1))
    a, b = (batch["targets"][np.argsort(batch["info/window"])] for batch in (first, second))
    assert (a != b).any(axis=1)[:-1].all()  # the last window may hold too little


@pytest.mark.parametrize("objective", NOISY)
def test_unigram_counts_and_evaluation_know_no_objective(store, objective):
    cut = StreamRows(store, objective)
    counts = pipeline.count_targets(batches(store, objective=objective), IDS.num_rows)
    rows = np.arange(len(cut))
    chunks = pipeline.EvalBatches((cut,), 0, (len(cut),), len(cut) + 3, np.arange(len(cut) + 3))
    batch = chunks(0)
    assert np.array_equal(batch["info/window"][: len(cut)], rows)
    for field, counted in (("weights", counts.all), ("content_weights", counts.content)):
        expected = np.bincount(batch["targets"].ravel(), batch[field].ravel(), IDS.num_rows)
        assert np.array_equal(counted, expected)
        assert batch[field][len(cut) :].sum() == 0
    assert 0 < counts.content.sum() < counts.all.sum()


def test_seed_and_step_decide(store):
    make = batches(store)
    assert_equal(make(4), batches(store)(4))
    assert (make(4)["inputs"] != make(5)["inputs"]).any()
    assert (make(4)["inputs"] != batches(store, seed=1)(4)["inputs"]).any()


def test_evaluation_goes_through_the_windows_in_order_and_pads_the_last_chunk(store):
    rows = StreamRows(store, OBJECTIVE)
    chunks = pipeline.EvalBatches((rows,), 0, (21,), 8, np.arange(8))
    assert len(chunks) == 3
    whole = OBJECTIVE(*rows.windows.read(np.arange(21)), None)
    got = np.concatenate([chunks(i)["targets"] for i in range(3)])
    assert np.array_equal(got[:21], whole["targets"])
    last = chunks(2)
    assert last["weights"][5:].sum() == 0
    assert last["weights"][:5].sum() == 5 * 64


def test_unigram_counts_are_those_of_the_text(store):
    vocab = store.vocab_size
    counts = pipeline.count_targets(batches(store), vocab)
    stream = store.read(np.array([0]), store.num_tokens)[0]
    expected = np.bincount(stream[1:], minlength=vocab)
    assert np.array_equal(counts.all, expected)
    log_probs, _ = counts.log_probs()
    assert np.exp(log_probs).sum() == pytest.approx(1, rel=1e-5)
    # A sample of the windows gives nearly the same entropy.
    some, _ = pipeline.count_targets(batches(store), vocab, max_tokens=60_000).log_probs()
    share = expected / expected.sum()
    assert -(share * some).sum() == pytest.approx(-(share * log_probs).sum(), rel=0.02)


def test_no_jax_backend_is_started(store):
    import subprocess
    import sys

    code = (
        "import numpy as np, sys\n"
        "from lmjax.data import pipeline\n"
        "from lmjax.data.store import Store\n"
        "from lmjax.data.rows import StreamRows\n"
        "from lmjax.objectives.clm import CausalLM\n"
        f"rows = StreamRows(Store.open({store.path!r}, 'train'), CausalLM(seq_len=64))\n"
        "make = pipeline.TrainBatches((rows,), 0, 4, np.arange(4))\n"
        "make(0)\n"
        "xla = sys.modules.get('jax._src.xla_bridge')\n"
        "assert xla is None or not xla._backends\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
