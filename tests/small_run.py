"""A run of seconds on real text, and what is compared of two of them."""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

import lmjax
from lmjax.data import output
from lmjax.export import to_hf
from lmjax.train.metrics import TIMINGS

CORPUS = Path(lmjax.__file__).parent / "corpora" / "corpus_small.jsonl"
OBJECTIVES = {"gpt2": "clm", "bert": "mlm", "t5": "span_corruption", "bart": "denoising"}
_CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict(dict(
        family={family!r},
        model=dict(hidden_size=32, num_layers=2, num_heads=2, head_dim=16, mlp_size=128),
        objective=dict(name={objective!r}),
        tokenizer=dict(vocab_size=600),
        data=dict(path={path!r}, cache_dir={cache!r}, seq_len=32, eval_fraction=0.1),
        optimizer=dict(learning_rate=1e-2),
        schedule=dict(warmup_steps=4),
        train=dict(num_steps=24, global_batch_size=8),
        checkpoint=dict(every=5),
        eval=dict(every=8, num_batches=2, num_samples=0),
        log=dict(every=3),
    ))
"""


def config(path, cache, family="gpt2", objective=None):
    """A config file's content; None: the family's objective."""
    fields = {"family": family, "objective": objective or OBJECTIVES[family]}
    return _CONFIG.format(path=str(path), cache=str(cache), **fields)


def config_file(folder, family="gpt2", objective=None):
    """Path of a config file in a folder, beside the 60 documents that it trains on."""
    text = folder / "text.jsonl"
    if not text.exists():
        text.write_text("".join(CORPUS.read_text().splitlines(keepends=True)[:60]))
    file = folder / f"{family}.py"
    file.write_text(config(text, folder / "cache", family, objective))
    return str(file)


def export(workdir, folder, **settings):
    """What tools/export_hf.py does without its flags; returns what it says."""
    quiet = lambda *_: None
    with output.new_folder(str(folder), marker="config.json", log=quiet) as partial:
        return to_hf.export(str(workdir), partial, progress=quiet, **settings)


def comparable(rows):
    """Rows of metrics without what differs from run to run."""
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]


def saved_steps(workdir):
    """Steps of the checkpoints of a run, ascending, each with its sums."""
    names = {path.name for path in (Path(workdir) / "checkpoints").iterdir()}
    steps = sorted(int(name) for name in names if name.isdigit())
    assert {f"{step}.sha256" for step in steps} == {n for n in names if n.endswith(".sha256")}
    return steps


def parameters(checkpoint):
    restored = ocp.StandardCheckpointer().restore((Path(checkpoint) / "state").absolute())
    return restored["params"]


def assert_same_bits(mine, theirs):
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert np.array_equal(a.view(np.uint32), b.view(np.uint32))
