"""Every preset has exactly the published number of parameters."""

import pytest

from lmjax import families, flops
from lmjax import fields as fields_lib

# Family or preset -> rows of the released embedding.
VOCABULARY = {
    "bert": 30_522,
    "roberta": 50_265,
    "modernbert": 50_368,
    "gpt2": 50_257,
    "bloom": 250_880,
    "t5": 32_128,
    "bart": 50_265,
    "llama3_1b": 128_256,
    "llama3_8b": 128_256,
    "qwen3_0_6b": 151_936,
    "olmo2_1b": 100_352,
}

# Parameters of the released checkpoints, with the head that is trained here: google-bert/bert-*,
# FacebookAI/roberta-*, answerdotai/ModernBERT-*, openai-community/gpt2*, bigscience/bloom-*,
# meta-llama/Llama-3.2-1B and Llama-3.1-8B, Qwen/Qwen3-0.6B, allenai/OLMo-2-0425-1B,
# google-t5/t5-*, google/t5-v1_1-*, facebook/bart-*. `test_numbers_of_their_classes` counts the
# same in transformers.
PUBLISHED = {
    ("bert", "base"): 109_514_298,
    ("bert", "large"): 335_174_458,
    ("roberta", "base"): 124_697_433,
    ("roberta", "large"): 355_412_057,
    ("modernbert", "base"): 149_655_232,
    ("modernbert", "large"): 395_881_664,
    ("gpt2", "small"): 124_439_808,
    ("gpt2", "medium"): 354_823_168,
    ("gpt2", "large"): 774_030_080,
    ("gpt2", "xl"): 1_557_611_200,
    ("bloom", "560m"): 559_214_592,
    ("bloom", "1b1"): 1_065_314_304,
    ("bloom", "1b7"): 1_722_408_960,
    ("bloom", "3b"): 3_002_557_440,
    ("bloom", "7b1"): 7_069_016_064,
    ("llama", "llama3_1b"): 1_235_814_400,
    ("llama", "llama3_8b"): 8_030_261_248,
    ("llama", "qwen3_0_6b"): 596_049_920,
    ("llama", "olmo2_1b"): 1_484_916_736,
    ("t5", "small"): 60_506_624,
    ("t5", "base"): 222_903_552,
    ("t5", "large"): 737_668_096,
    ("t5", "3b"): 2_851_598_336,
    ("t5", "11b"): 11_307_321_344,
    ("t5", "v1_1_small"): 76_961_152,
    ("t5", "v1_1_base"): 247_577_856,
    ("t5", "v1_1_large"): 783_150_080,
    ("t5", "v1_1_3b"): 2_849_757_184,
    ("t5", "v1_1_11b"): 11_135_332_352,
    # Without the bias of the logits, which is not trained and which `num_params` counts, too.
    ("bart", "base"): 139_420_416,
    ("bart", "large"): 406_291_456,
}
OWN_SIZES = {
    ("modernbert", "mini"),
    ("bert", "tiny"),
    ("bert", "mini"),
    ("gpt2", "tiny"),
    ("gpt2", "mini"),
} | {
    ("t5", "tiny"),
    ("t5", "mini"),
    ("bart", "tiny"),
}


def model_of(family, preset):
    size = VOCABULARY.get(preset) or VOCABULARY[family]
    raw = {"family": family, "model": {"preset": preset, "vocab_size": size}}
    raw["data"] = {"seq_len": 512}
    return fields_lib.from_dict(families.resolve(raw)).model


def test_every_preset_has_a_published_number():
    presets = {(f, p) for f, module in families.FAMILIES.items() for p in module.PRESETS}
    assert presets == PUBLISHED.keys() | OWN_SIZES


@pytest.mark.parametrize(("family", "preset"), PUBLISHED)
def test_published_numbers(family, preset):
    model = model_of(family, preset)
    untrained = model.vocab_size if model.frozen_logits_bias else 0
    number = sum(flops.num_params(model).values())
    assert number - untrained == PUBLISHED[family, preset]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # 2026-11: third-party imports warn (torch, transformers).
@pytest.mark.parametrize(("family", "preset"), PUBLISHED)
def test_numbers_of_their_classes(theirs, family, preset):
    model = model_of(family, preset)
    if model.max_positions is None:  # of classes that want to be told some length
        model = model.model_copy(update={"max_positions": 2048})
    written = None
    for fmt in families.FAMILIES[family].FORMATS:
        try:
            written = fmt.write_config(model, fmt.ids, "float32")
            break
        except families.UserError:
            continue
    assert theirs.count_parameters(written, model.tie_embeddings) == PUBLISHED[family, preset]
