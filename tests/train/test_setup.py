from types import SimpleNamespace

import numpy as np
import pytest

from lmjax import config as config_lib
from lmjax import families, objectives
from lmjax import fields as fields_lib
from lmjax.batch import Ids, Pieces
from lmjax.errors import UserError
from lmjax.train import describe, setup


def make_config(**overrides):
    return fields_lib.replace(config_lib.Config(), overrides)


def tokenizer(size):
    return SimpleNamespace(
        vocab_size=size,
        ids=lambda num_rows: Ids(num_ids=size, num_rows=num_rows),
        pad_id=0,
        eos_id=1,
        decoder_start_id=None,
    )


@pytest.mark.parametrize(("family", "start"), [("t5", 0), ("bart", 1), ("gpt2", None)])
def test_the_decoder_starts_as_it_is_published(family, start):
    model = families.resolve({"family": family})["model"]
    fields = {"family": family, **{f"model.{k}": v for k, v in model.items()}}
    config = setup.resolve(make_config(**fields | {"model.vocab_size": 40_000}))
    assert setup.decoder_start_id(config, tokenizer(600)) == start
    assert setup.make_ids(config, tokenizer(600)).decoder_start == (start or 0)


@pytest.mark.parametrize(
    ("name", "rows"), [("clm", 32_000), ("mlm", 32_000), ("span_corruption", 32_128)]
)
def test_the_embedding_has_room_for_tokenizer_and_sentinels(name, rows):
    config = setup.resolve(make_config(**{"objective.name": name}))
    assert config.model.vocab_size == rows
    assert setup.resolve(config) == config
    assert setup.make_ids(config, tokenizer(32_000)) == Ids(num_ids=32_000, num_rows=rows)
    small = setup.resolve(make_config(**{"objective.name": name}), tokenizer_size=600)
    assert small.model.vocab_size == 640 + rows - 32_000


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("mlm", 385, r"385 ids, the embedding 384 rows"),
        ("span_corruption", 257, r"257 ids and the objective needs 128 sentinels, .* 384 rows"),
    ],
)
def test_too_few_rows_for_the_ids(name, size, message):
    config = make_config(**{"objective.name": name, "model.vocab_size": 384})
    setup.make_ids(config, tokenizer(size - 1))
    with pytest.raises(UserError, match=message):
        setup.make_ids(config, tokenizer(size))


@pytest.mark.parametrize("name", objectives.PRETRAINING)
def test_an_objective_is_made_from_the_config(name):
    config = make_config(
        **{
            "objective.name": name,
            "model.architecture": objectives.OBJECTIVES[name].ARCHITECTURE or "encoder_decoder",
            "objective.mixture": (("span_corruption", 1.0, ()),),
            "objective.mask_rate": 0.25,
            "objective.mean_span_length": 5.0,
            "objective.mask_token_share": 0.7,
            "objective.random_token_share": 0.2,
            "data.seq_len": 100,
        }
    )
    objective = objectives.make(config, Ids(num_ids=90, num_rows=256))
    assert objective.seq_len == 100
    for field in ("mask_rate", "mean_span_length", "mask_token_share", "random_token_share"):
        if hasattr(objective, field):
            assert getattr(objective, field) == getattr(config.objective, field)


def test_an_objective_that_goes_by_words_gets_the_pieces():
    config = setup.resolve(make_config(**{"objective.name": "mlm", "objective.whole_word": True}))
    pieces = [b"", b"", b"", b" the", b"re", *(chr(0x4E00 + i).encode() for i in range(60))]
    known = tokenizer(len(pieces))
    known.surfaces, known.special_ids = pieces, (0, 1, 2)
    known.continuing_prefix, known.unk_id = None, 2
    found = setup.make_ids(config, known)
    assert found == Ids(num_ids=65, num_rows=32_000)
    assert found.pieces.starts_word[:6].tolist() == [8, 8, 8, 2, 0, 2]
    assert found.pieces.unsegmented == (("Han", 60),)
    plain = setup.resolve(make_config(**{"objective.name": "mlm"}))
    assert setup.make_ids(plain, known).pieces is None


def test_the_line_on_scripts_without_spaces():
    votes = [np.zeros(1000, np.int8)] * 4
    assert describe.words_line(Pieces(*votes)) is None
    assert describe.words_line(Pieces(*votes, unsegmented=(("Lao", 0),))) is None
    marked, unmarked = (("Thai", 1234),), (("Han", 500), ("Hiragana", 20))
    line = describe.words_line(Pieces(*votes, segmented=marked, unsegmented=unmarked))
    assert line.startswith("words: Thai (1,234 pieces) as spaces or U+200B mark them; Han (500 pie")
    assert "Hiragana (20 pieces) piece by piece, since nothing marks them; for real words" in line
    assert "; " not in describe.words_line(Pieces(*votes, segmented=marked))
