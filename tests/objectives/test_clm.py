import numpy as np

from lmjax import batch as batch_lib
from lmjax.noise import RowNoise
from lmjax.objectives.clm import CausalLM
from lmjax.objectives.segments import segments


def make_window(documents, start, length):
    """Slow reference: the stream of documents, each closed by token 1, cut at `start`."""
    stream = [(t, i) for i, doc in enumerate(documents) for t in [*doc, 1]]
    window = stream[start : start + length]
    window += [(0, -1)] * (length - len(window))
    tokens, owners = zip(*window, strict=True)
    return np.array([tokens], np.int32), np.array([owners], np.int64)


def test_every_token_is_predicted_once_from_its_own_document():
    rng = np.random.default_rng(0)
    documents = [list(rng.integers(5, 99, n)) for n in (3, 1, 9, 2, 30, 1, 5)]
    stream = [t for doc in documents for t in [*doc, 1]]
    objective = CausalLM(seq_len=8)
    predicted = []
    for start in range(0, len(stream), objective.window_stride):
        window = make_window(documents, start, objective.window_length)
        batch = objective(*window, RowNoise(0, [0], [0]))
        batch_lib.check(batch, objective.spec(1))
        for t in range(8):
            if not batch["weights"][0, t]:
                assert batch["segment_ids"][0, t] == 0
                continue
            predicted.append(int(batch["targets"][0, t]))
            # What the model may look at: the same segment, from its start up to t.
            seen = [
                int(batch["inputs"][0, s])
                for s in range(t + 1)
                if batch["segment_ids"][0, s] == batch["segment_ids"][0, t]
            ]
            assert batch["positions"][0, t] == len(seen) - 1
            # All but a leading separator belong to the document of the target.
            assert 1 not in seen[1:]
    assert predicted == stream[1:]


def test_row_without_any_text_weighs_nothing():
    batch = CausalLM(seq_len=4)(
        np.zeros((2, 5), np.int32), np.full((2, 5), -1), RowNoise(0, [0, 0], [0, 1])
    )
    assert batch["weights"].sum() == 0
    assert batch["segment_ids"].sum() == 0


def test_segments_number_runs_and_restart_positions():
    ids, positions = segments(np.array([[4, 4, 5, 9, 9, 9, -1, -1]]))
    assert ids.tolist() == [[1, 1, 2, 3, 3, 3, 0, 0]]
    assert positions.tolist() == [[0, 1, 0, 0, 1, 2, 0, 0]]
    assert ids.dtype == positions.dtype == np.int32
