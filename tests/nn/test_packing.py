"""Documents that share a row get the predictions they get alone, in every family."""

import numpy as np
import pytest
from variants import VOCAB, apply, is_encoder, is_two, make_model

from lmjax.batch import Ids, Pieces
from lmjax.data import plan
from lmjax.data.rows import PlannedRows
from lmjax.families import FAMILIES
from lmjax.objectives.clm import CausalLM
from lmjax.objectives.denoising import Denoising
from lmjax.objectives.mlm import MaskedLM
from lmjax.objectives.span_corruption import SpanCorruption

NUM_IDS = 70
_VOTES = np.where(np.arange(VOCAB) % 3, 2, 0).astype(np.int8)
IDS = Ids(
    num_ids=NUM_IDS,
    num_rows=VOCAB,
    first_sentinel=VOCAB - 1,
    num_sentinels=20,
    pieces=Pieces(_VOTES * 0, _VOTES, _VOTES, _VOTES * 0),
)
NUM_ROWS = 24  # of either kind, so that one program serves both


class Documents:
    """A store of short documents in memory."""

    split, manifest_sha256, token_bytes = "train", "0", 2

    def __init__(self, path):
        rng = np.random.default_rng(0)
        texts = [rng.integers(5, NUM_IDS, n) for n in rng.integers(2, 20, NUM_ROWS)]
        self.path = str(path)
        self.stream = np.concatenate([t for text in texts for t in (text, [IDS.eos])])
        self.starts = np.cumsum([0] + [len(text) + 1 for text in texts])
        self.num_documents, self.num_tokens = len(texts), len(self.stream)

    def bounds(self, first, stop):
        return self.starts[first : stop + 1]

    def read(self, start, length):
        padded = np.concatenate([self.stream, np.zeros(length, int)])
        return padded[start[:, None] + np.arange(length)].astype(np.int32)


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    return Documents(tmp_path_factory.mktemp("documents"))


def objective_of(variant):
    if is_encoder(variant):
        return MaskedLM(24, IDS, mask_rate=0.3)
    if is_two(variant):
        return Denoising(24, IDS) if variant == "bart" else SpanCorruption(24, IDS, 0.3, 2.0)
    return CausalLM(24)


def predictions(model, params, batch):
    """[(what a document asks and answers, its log-probabilities)], in the order of the first."""
    logits = np.asarray(apply(model, params, batch), np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    segment = batch["segment_ids"]
    if "predict_at" in batch:
        segment = np.take_along_axis(segment, batch["predict_at"], axis=1)
    segment = np.where(batch["weights"] > 0, segment, 0)
    found = []
    for r, s in sorted({(r, int(segment[r, t])) for r, t in np.argwhere(segment)}):
        read = batch["inputs"][r][batch["segment_ids"][r] == s].tolist()
        if "enc_inputs" in batch:
            read += batch["enc_inputs"][r][batch["enc_segment_ids"][r] == s].tolist()
        here = segment[r] == s
        found.append((read, batch["targets"][r][here].tolist(), log_probs[r][here]))
    return sorted(found, key=lambda one: one[:2])


@pytest.mark.parametrize("variant", FAMILIES)
def test_a_packed_document_is_predicted_as_alone(variant, documents):
    objective = objective_of(variant)
    model, params = make_model(variant)
    results, index = [], np.arange(NUM_ROWS)
    for packing in ("pack", "document"):
        made = plan.ensure(documents, packing, plan.sizes(objective), "unused")
        assert made.num_rows <= NUM_ROWS
        batch = PlannedRows(documents, objective, made).make(0, index * 0, index)
        results.append(predictions(model, params, batch))
    packed, alone = results
    assert [one[:2] for one in packed] == [one[:2] for one in alone]
    assert len(packed) == NUM_ROWS
    for (*_, mine), (*_, theirs) in zip(packed, alone, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
