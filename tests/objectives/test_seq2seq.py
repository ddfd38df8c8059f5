import pytest
from labelled_examples import BOS, EOS, IDS, Words

from lmjax import config as config_lib
from lmjax import fields as fields_lib
from lmjax.errors import UserError
from lmjax.objectives import seq2seq as module

RECORD = {"source": "it rains", "target": "llueve mucho"}


def make(seq_len=12, target_length=6, **more):
    return module.Seq2Seq(seq_len, target_length, IDS, **more)


def test_the_decoder_reads_its_start_and_writes_the_target():
    words = Words()
    example = make(prefix="en es: ").encode(RECORD, words)
    source, target = words.ids("en es: it rains"), words.ids("llueve mucho")
    row = example.row
    assert row["enc_inputs"].tolist() == [*source, EOS]
    assert row["inputs"].tolist() == [IDS.decoder_start, *target]
    assert row["targets"].tolist() == [*target, EOS]
    assert row["weights"].tolist() == [1.0] * 3
    assert make().prompt(example).tolist() == [*source, EOS]


def test_texts_begin_with_bos_where_the_model_knows_them_so():
    words = Words()
    row = make(begins_with_bos=True).encode(RECORD, words).row
    assert row["enc_inputs"].tolist() == [BOS, *words.ids("it rains"), EOS]
    assert row["targets"].tolist() == [BOS, *words.ids("llueve mucho"), EOS]


def test_what_is_too_long_is_cut_before_its_end_and_said():
    words = Words()
    example = make(4, 3).encode({"source": "a b c d e", "target": "f g h"}, words)
    assert example.row["enc_inputs"].tolist() == [*words.ids("a b c"), EOS]
    assert example.row["targets"].tolist() == [*words.ids("f g"), EOS]
    assert example.needs == {"data.seq_len": 6, "objective.target_length": 4}


def test_the_answer_is_the_text_of_what_was_written():
    words = Words()
    example = make().encode(RECORD, words)
    assert make().answer(words.ids(" llueve mucho"), example, words) == "llueve mucho"


def test_a_target_beyond_the_table_of_positions_is_refused():
    changes = {"objective.target_length": 4096, "model.architecture": "encoder_decoder"}
    config = fields_lib.replace(config_lib.Config(), changes)
    with pytest.raises(UserError, match="target_length=4096 is longer"):
        module.make(config, IDS)


def test_mistakes():
    with pytest.raises(UserError, match="target is empty"):
        make().encode({"source": "a", "target": ""}, Words())
    with pytest.raises(UserError, match="has no source, but the fields 'document'"):
        make().encode({"document": "a"}, Words())
