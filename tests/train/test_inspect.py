import io
import re

import numpy as np
import pytest
from rich.console import Console

from lmjax import config as config_lib
from lmjax import fields as fields_lib
from lmjax import objectives
from lmjax.data.pipeline import TrainBatches
from lmjax.train import data as data_lib
from lmjax.train import setup
from lmjax.train.inspect import Inspector, arrays


@pytest.fixture(scope="module")
def inspect(tmp_path_factory):
    cache_dir = str(tmp_path_factory.mktemp("cache"))

    def make(name):
        config = fields_lib.replace(
            config_lib.Config(),
            {
                "objective.name": name,
                "model.architecture": objectives.OBJECTIVES[name].ARCHITECTURE,
                "tokenizer.vocab_size": 600,
                "data.cache_dir": cache_dir,
                "data.eval_fraction": 0.05,
                "data.seq_len": 64,
            },
        )
        stores = data_lib.open_stores(config)
        ids = setup.make_ids(setup.resolve(config), stores.tokenizer)
        objective = objectives.make(config, ids)
        rows = data_lib.make_rows(config, *stores.train, objective)
        batches = TrainBatches((rows,), 0, 4, np.arange(4))
        return Inspector(batches, stores.tokenizer, ids)

    return make


def printed(inspector, styled=False):
    color = "standard" if styled else None
    console = Console(file=io.StringIO(), width=4000, force_terminal=styled, color_system=color)
    inspector.show(console, range(2, 3), 4)
    return console.file.getvalue()


def test_causal_rows_show_inputs_and_targets(inspect):
    shown = inspect("clm")
    text = printed(shown)
    batch = shown.batches(2)
    assert "step 2: 4 rows, showing 4" in text
    assert shown.tokenizer.decode(batch["targets"][0]).split("\n")[0] in text
    assert "inputs: 64 ids, 1 segments, 0 padding; 64 predictions" in text


def test_masks_show_what_they_hide(inspect):
    shown = inspect("mlm")
    batch, text = shown.batches(2), printed(shown)
    assert text.count("<mask>") == batch["content_weights"].sum()
    assert "targets  " not in text
    row = {name: field[0] for name, field in batch.items()}
    hidden = dict(zip(row["predict_at"].tolist(), row["targets"].tolist(), strict=True))
    at = next(t for t, token in enumerate(row["inputs"]) if token == shown.ids.mask)
    assert f"<mask>{{{shown.tokenizer.piece(hidden[at])}}}" in text
    counts = [tuple(map(int, c)) for c in re.findall(r"(\d+) masked, (\d+) random, (\d+) k", text)]
    assert np.sum(counts) == batch["weights"].sum()
    assert text.count("{=}") == sum(kept for _, _, kept in counts)
    drawn = batch["weights"].sum() - sum(masked + kept for masked, _, kept in counts)
    assert printed(shown, styled=True).count("\x1b[1;31m") == drawn  # red
    assert drawn > 0


def test_sentinels_have_names_on_both_sides(inspect):
    text = printed(inspect("span_corruption"))
    names = ("encoder  ", "inputs   <pad><extra_id_0>", "targets  <extra_id_0>")
    for name in names:
        assert sum(line.startswith(name) for line in text.splitlines()) == 4
    assert text.count("<extra_id_2>") == 3 * 4
    assert "encoder: 64 ids, 1 segments, 0 padding; inputs: 14 ids" in text


def test_of_a_whole_text_only_what_was_hidden_is_bright(inspect):
    shown = inspect("denoising")
    batch, text = shown.batches(2), printed(shown)
    masks = int((batch["enc_inputs"] == shown.ids.mask).sum())
    assert text.count("<mask>") == masks > 0
    styled = printed(shown, styled=True)
    assert styled.count("\x1b[1;7m<mask>") == masks
    (bright, *_) = re.findall(r"targets  \x1b\[0m(.*)", styled)
    bright = re.sub(r"\x1b\[(?:2|1;7)m.*?\x1b\[0m", "", bright)  # without what is given away
    row = {name: field[0] for name, field in batch.items()}
    hidden = row["targets"][row["content_weights"] > 0]
    assert bright.replace(" ", "") == shown.tokenizer.decode(hidden).replace(" ", "")
    given = int(row["weights"].sum()) - len(hidden)
    assert f"{int(row['weights'].sum())} predictions, {given} of them given away" in text


def test_mode_tokens_are_called_as_in_an_export(inspect):
    text = printed(inspect("ul2"))
    lines = [line for line in text.splitlines() if line.startswith("encoder  ")]
    assert len(lines) == 4
    assert all(re.match(r"encoder  <extra_id_(128|129|130)>", line) for line in lines)


def test_arrays_stack_the_steps(inspect):
    shown = inspect("mlm")
    stacked = arrays(shown.batches, range(3))
    assert stacked["inputs"].shape == (3, 4, 64)
    assert np.array_equal(stacked["window"][1], shown.batches(1)["info/window"])
