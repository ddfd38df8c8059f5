"""Exports of all families in the hands of transformers, with models of random weights.

`tests/test_configs.py` asks the same of the trained tiny configs. Needs the extra [parity].
"""

import jax
import numpy as np
import pytest
import small_run
import stock_classes

from lmjax.families import weights
from lmjax.train import checkpoint, workdir
from lmjax.train import trained as trained_lib

pytestmark = [
    pytest.mark.parity,
    # 2026-11: third-party imports warn (torch, transformers on Python 3.11).
    pytest.mark.filterwarnings("ignore"),
]
ROWS = 800  # of the embedding: 600 ids, unused ones, 128 sentinels
ENCODERS = {"bert": {}, "roberta": {}, "modernbert": {"num_layers": 4, "window": 16}}
DECODERS = {"gpt2": {}, "bloom": {"mlp_size": 128}, "llama": {"num_kv_heads": 1}}
BOTH = {"t5": {}, "bart": {}}
FIELDS = ENCODERS | DECODERS | BOTH
KIND = {name: "unigram" if number % 2 else "bpe" for number, name in enumerate(FIELDS)}
SWIGLU = {"activation": "silu", "mlp_gated": True, "tie_embeddings": False, "scale_logits": False}
PARTS = (("denoising", 1.0, ()), ("span_corruption", 2.0, (("mask_rate", 0.5),)))
OTHERS = [  # what encoder-decoders are trained by beside span corruption
    ("t5", "denoising", {}),
    ("t5", "prefix_lm", {}),
    ("t5", "ul2", SWIGLU),
    ("bart", {"name": "mixture", "mixture": PARTS}, {}),
]


@pytest.mark.parametrize(
    ("family", "objective", "fields"), [*((f, None, FIELDS[f]) for f in FIELDS), *OTHERS]
)
def test_an_export_is_the_model(trained, make_config, family, objective, fields, tmp_path):
    tokenizer = trained(KIND[family], 600)
    config = make_config(family, tokenizer, objective, vocab_size=ROWS, **fields)
    rng, work, folder = np.random.default_rng(0), tmp_path / "work", tmp_path / "exported"
    shapes = weights.shapes(config.model)
    params = {k: rng.normal(0, 0.3, shape).astype("f") for k, shape in shapes.items()}
    checkpoint.save_weights(str(work / "checkpoints"), weights.nested(params), {"seed": 0})
    (work / "tokenizer").mkdir()
    tokenizer.save(work / "tokenizer")
    workdir.write(work, workdir.RunConfig(config, {"file": "config.py", "sha256": ""}))
    small_run.export(work, folder)
    run = trained_lib.load(str(work), devices=jax.devices()[:1])
    stock_classes.assert_same_tokenizer(run, folder, stock_classes.bundled_lines())
    stock_classes.assert_same_use(run, folder)
