"""An exported folder in the hands of transformers, beside lmjax's own forward pass: the same ids,
answers and log-probabilities. Needs the extra [parity]."""

import functools
import json
import re

import jax
import numpy as np
import pytest
from small_run import CORPUS

from lmjax.export import card, sections
from lmjax.train import trained

LONGEST = 48  # ids of a row; padded, so that each model is compiled once
# Objective -> ids in front of a text and behind it, by lmjax's own tokenizers.
FRAMES = {"mlm": ([3], [1]), "clm": ([], []), "denoising": ([3], [1])}
MASKED = ("mlm", "denoising", "mixture")  # what has a mask, cls and sep
SENTINELS = {"span_corruption": 128, "ul2": 131, "mixture": 128}


def library():
    """transformers, quiet; skips the test where it is missing."""
    pytest.importorskip("torch")
    found = pytest.importorskip("transformers")
    found.logging.set_verbosity_error()
    found.logging.disable_progress_bar()
    return found


def bundled_lines(count=2000):
    """Lines of the bundled text, spread over all of it, blank ones among them."""
    texts = [json.loads(line)["text"] for line in CORPUS.read_text("utf-8").splitlines()]
    lines = [line for text in texts for line in text.split("\n")]
    return lines[:: len(lines) // count][:count]


def assert_same_ids(run, folder, lines):
    """Of text, and with the text back; returns lmjax's ids and their tokenizer."""
    tokenizer = library().AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = [ids.tolist() for ids in run.tokenizer.encode_batch(lines)]
    assert tokenizer(lines, add_special_tokens=False)["input_ids"] == ours
    said = library().AutoConfig.from_pretrained(folder)
    for name in ("pad", "bos", "eos"):
        configured = getattr(said, f"{name}_token_id", None)
        mine = getattr(tokenizer, f"{name}_token_id")
        assert mine is None or configured in (None, mine), name
    return ours, tokenizer


def assert_same_tokenizer(run, folder, lines):
    """For tokenizers of lmjax's own: special tokens and frames, too."""
    ours, theirs = assert_same_ids(run, folder, lines)
    assert not any(run.tokenizer.unk_id in ids for ids in ours)
    architecture, rows = run.config.model.architecture, run.config.model.vocab_size
    objective = run.config.objective.name
    before, behind = FRAMES.get(objective, ([], [1]))
    encoded = theirs(lines)
    assert encoded["input_ids"] == [before + ids + behind for ids in ours]
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert theirs.batch_decode(encoded["input_ids"], skip_special_tokens=True) == lines
    spelled = "a <mask> of <s> and </s>, <pad> <extra_id_0> <0x41>"
    split = library().AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    expected = run.tokenizer.encode(spelled).tolist()
    assert split(spelled, add_special_tokens=False)["input_ids"] == expected
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2)
    assert theirs.padding_side == ("left" if architecture == "decoder" else "right")
    masks = (3, 4, 3, 1) if objective in MASKED else (None,) * 4
    special = [getattr(theirs, f"{name}_token_id") for name in ("bos", "mask", "cls", "sep")]
    assert special == [1 if architecture == "decoder" else masks[0], *masks[1:]]
    if count := SENTINELS.get(objective):
        names = [f"<extra_id_{number}>" for number in range(count)]
        assert theirs.convert_tokens_to_ids(names) == list(range(rows - 1, rows - 1 - count, -1))
        assert len(theirs) == rows
    else:
        spelled = run.tokenizer.encode("<extra_id_0>").tolist()
        assert theirs("<extra_id_0>")["input_ids"] == [*before, *spelled, *behind]


def assert_same_use(run, folder):
    """What the objective is for: filled masks, a greedy continuation, filled spans, a whole text.

    The code in the card runs, too.
    """
    kinds = {"mlm": _fills_masks, "clm": _continues, "denoising": _restores, "prefix_lm": _goes_on}
    kinds.get(run.config.objective.name, _fills_spans)(run, str(folder))
    text = (folder / card.FILE).read_text("utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(snippet.replace(sections.PLACE, str(folder)), {})


def _fills_masks(run, folder):
    fill = library().pipeline("fill-mask", model=folder, tokenizer=folder)
    parts = ("It was the best of", ", it was\tthe worst")
    first, second = (run.tokenizer.encode(part).tolist() for part in parts)
    special = trained.special_ids(run.config, run.tokenizer)
    ids = [special["cls"], *first, special["mask"], *second, special["sep"]]
    expected, at = logprobs(run, ids), 1 + len(first)
    best = np.argsort(-expected[at])[:5]
    text = f"{parts[0]} {fill.tokenizer.mask_token}{parts[1]}"
    found = fill(text, top_k=5)
    assert [answer["token"] for answer in found] == best.tolist()
    scores = np.log([answer["score"] for answer in found])
    np.testing.assert_allclose(scores, expected[at][best], atol=1e-4)
    _assert_same_logprobs(fill.model(**fill.tokenizer(text, return_tensors="pt")), expected)


def _continues(run, folder):
    generate = library().pipeline("text-generation", model=folder, tokenizer=folder)
    prompts = ["Call me Ishmael. Some years ago", "In the"]
    ids = [run.tokenizer.encode(prompt).tolist() for prompt in prompts]
    pad = generate.tokenizer.pad_token_id
    how = {"max_new_tokens": 8, "do_sample": False, "return_tensors": True}
    answers = generate(prompts, batch_size=1 if pad is None else 2, **how)
    for prompt, (found,) in zip(ids, answers, strict=True):
        real = [token for token in found["generated_token_ids"] if token != pad]
        assert real == prompt + greedy(run, prompt, 8)
    encoded = generate.tokenizer(prompts[0], return_tensors="pt")
    _assert_same_logprobs(generate.model(**encoded), logprobs(run, ids[0]))


def _fills_spans(run, folder):
    sentinel = run.tokenizer.ids(run.config.model.vocab_size).sentinel
    modes = [128, 129, 130] if run.config.objective.name == "ul2" else [None]
    for mode in modes:
        first, second = (
            run.tokenizer.encode(part).tolist() for part in ("Thank you", " me to your party")
        )
        source = [*first, sentinel(0), *second, sentinel(1)]
        text = "Thank you<extra_id_0> me to your party<extra_id_1>"
        if mode is not None:
            text, source = f"<extra_id_{mode}>{text}", [sentinel(mode), *source]
        _assert_same_writing(run, folder, text, source)


def _restores(run, folder):
    first, second = (run.tokenizer.encode(part).tolist() for part in ("The weather is", " today."))
    text, source = "The weather is<mask> today.", [*first, run.tokenizer.mask_id, *second]
    _assert_same_writing(run, folder, text, source)


def _goes_on(run, folder):
    text = "The weather is"
    _assert_same_writing(run, folder, text, run.tokenizer.encode(text).tolist())


def _assert_same_writing(run, folder, text, source):
    """Of an encoder-decoder that reads `text`, whose ids are `source` but for its frame."""
    import torch

    theirs = library().AutoTokenizer.from_pretrained(folder, local_files_only=True)
    stock = library().AutoModelForSeq2SeqLM
    model = stock.from_pretrained(folder, local_files_only=True).eval()
    assert theirs(text, add_special_tokens=False)["input_ids"] == source
    begin = [run.tokenizer.bos_id] * (run.config.objective.name == "denoising")
    source = [*begin, *source, run.tokenizer.eos_id]
    encoded = {"input_ids": torch.tensor([source])}
    found = model.generate(**encoded, max_new_tokens=8, do_sample=False)
    forced = model.generation_config.forced_bos_token_id  # not of imports
    written = [run.decoder_start_id] + [forced] * (forced is not None)
    written += greedy(run, written, 9 - len(written), source)
    # BART's generation ends with the end in any case.
    assert found[0].tolist()[:8] == written[:8]
    output = model(**encoded, decoder_input_ids=found)
    _assert_same_logprobs(output, logprobs(run, found[0].tolist(), source))


def logprobs(run, ids, source=None):
    """lmjax: log p at every position of one row, float64 [T, V]."""

    def fields(ids, prefix=""):
        real = np.arange(LONGEST) < len(ids)
        padded = np.where(real, np.resize(np.array(ids), LONGEST), 0)
        values = {"inputs": padded, "segment_ids": real, "positions": np.arange(LONGEST) * real}
        return {f"{prefix}{k}": v[None].astype(np.int32) for k, v in values.items()}

    batch = fields(ids) | ({} if source is None else fields(source, "enc_"))
    with run.context():
        logits = _logits(run.model, run.params, batch)
    return np.asarray(jax.nn.log_softmax(logits[0, : len(ids)]), np.float64)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, batch):
    return model.apply({"params": params}, batch)


def greedy(run, ids, count, source=None):
    """lmjax: the likeliest next ids, up to the end."""
    ids, start = list(ids), len(ids)
    while len(ids) < start + count and (len(ids) == start or ids[-1] != run.tokenizer.eos_id):
        ids.append(int(logprobs(run, ids, source)[-1].argmax()))
    return ids[start:]


def _assert_same_logprobs(output, expected, row=0):
    """`output`: of their model, logits [B, T, V]."""
    found = output.logits.log_softmax(-1)[row].detach().numpy()
    assert np.abs(expected).max() > 5
    assert np.abs(found - expected).max() <= 1e-4
