"""A run's tokenizer -> the files from which transformers' `AutoTokenizer` makes the same.

Which names tokenizer_config.json has beside pad, unk and eos, and what stands around a text, the
objective says (`lmjax.objectives.description`):

| trained by | names | around a text |
|---|---|---|
| masked LM, denoising | bos cls sep mask | `<s>` A `</s>` (B `</s>`) |
| span corruption, UL2 | `<extra_id_0>` ... | A `</s>` (B `</s>`) |
| prefix LM | none | A `</s>` (B `</s>`) |
| causal LM | bos, which is `</s>`, too | nothing |

A decoder's text gets nothing, as when lmjax scores it: in training a document follows on the end of
the one before, so an end behind a prompt would begin another document. A decoder pads on the left,
because what is generated follows on the right end of each row; the others on the right, as in
training. A name that an objective does not use stays text.

**Text that spells a special token** is that token to transformers: "<mask>" is how one asks what
the mask hides. White space in front of a mask or sentinel belongs to it, because the piece that it
hides begins with its space. With `split_special_tokens=True` such text is text, and its ids are
lmjax's, which never makes a special id from text; the default is false.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmjax import objectives
from lmjax.config import Config
from lmjax.data.tokenizer import AnyTokenizer, IdsTokenizer, JsonTokenizer, Tokenizer
from lmjax.export import tokenizer_check
from lmjax.export.tokenizer_check import MAIN
from lmjax.hf import tokenizer_json
from lmjax.hf.tokenizer_json import TEXT, Special
from lmjax.train import trained

CONFIG = "tokenizer_config.json"

_NAMES = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")
_ALWAYS = ("pad", "unk", "eos")


def write(folder: str, config: Config, tokenizer: AnyTokenizer) -> str:
    """Writes the files to an existing folder; returns what is to be said of them.

    Raises:
      UserError: what transformers would make of them is not the tokenizer.
    """
    contents = files(config, tokenizer)
    if not contents:
        return "without tokenizer (the model was imported without one: it takes ids)"
    said = f"{MAIN} as it was imported"
    if not hasattr(tokenizer, "published_files"):
        texts, source = tokenizer_check.sample(config, tokenizer)
        num_texts = tokenizer_check.check(contents, tokenizer, texts)
        said = f"{MAIN} gives the same ids for {num_texts:,} texts of {source}"
    for name, content in contents.items():
        (Path(folder) / name).write_bytes(content)
    return said


def files(config: Config, tokenizer: AnyTokenizer) -> dict[str, bytes]:
    """The tokenizer's files by name; none where the tokenizer is unknown.

    Those of a tokenizer that came with an imported model are returned as they came.

    Raises:
      UserError: the tokenizer is of a kind that has no such files.
    """
    if isinstance(tokenizer, IdsTokenizer):
        return {}
    published: Mapping[str, bytes] | None = getattr(tokenizer, "published_files", None)
    if published is not None:
        return dict(published)
    objective, ids = objectives.describe(config), trained.special_ids(config, tokenizer)
    used_names = [name for name in _NAMES if name in (*_ALWAYS, *objective.special)]
    names = {name: tokenizer.piece(ids[name]) for name in used_names}
    before, behind = ([names[name] for name in side] for side in objective.frame)
    by_id = {ids[name]: content for name, content in names.items()}
    used = [Special(by_id[i], i, by_id[i] == names.get("mask")) for i in sorted(by_id)]
    main = tokenizer_json.from_sentencepiece(
        tokenizer.pieces,
        tokenizer.config["model_type"],
        tokenizer.unk_id,
        used + _behind(config, tokenizer),
        [*before, TEXT, *behind],
        pair_type=int(_tells_pairs(config)),
    )
    described = _described(config, tokenizer, names)
    return {MAIN: main, CONFIG: (json.dumps(described, indent=2) + "\n").encode()}


def _tells_pairs(config: Config) -> bool:
    """Whether the model was shown which tokens are of the second of two texts."""
    return objectives.is_labelled(config) and config.model.token_types > 1


def names_sentinels(config: Config, tokenizer: AnyTokenizer) -> bool:
    """Whether `<extra_id_0>` is the first sentinel to the tokenizer's files."""
    if isinstance(tokenizer, JsonTokenizer):
        return tokenizer.sentinels != (None, None)
    return isinstance(tokenizer, Tokenizer) and bool(trained.sentinel_ids(config, tokenizer))


def sentinel_name(number: int) -> str:
    """What a sentinel is called where it has a name."""
    return f"<extra_id_{number}>"


def _behind(config: Config, tokenizer: Tokenizer) -> list[Special]:
    """Tokens of the rows behind the tokenizer's own: sentinels, and names for rows between."""
    ids = trained.sentinel_ids(config, tokenizer)
    if not ids:
        return []
    unused = [Special(f"<unused_{i}>", i) for i in range(tokenizer.vocab_size, ids[-1])]
    named = [Special(sentinel_name(k), i, takes_space=True) for k, i in enumerate(ids)]
    return unused + named[::-1]


def _described(config: Config, tokenizer: Tokenizer, names: Mapping[str, str]) -> dict[str, Any]:
    """tokenizer_config.json, in words that transformers 4 and 5 read alike."""
    is_decoder = config.model.architecture == "decoder"
    sentinels = [sentinel_name(k) for k in range(len(trained.sentinel_ids(config, tokenizer)))]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.model.max_positions or config.data.seq_len,
        "padding_side": "left" if is_decoder else "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "model_input_names": ["input_ids", "attention_mask"]
        + ["token_type_ids"] * _tells_pairs(config),
        **{f"{name}_token": content for name, content in names.items()},
        **({"additional_special_tokens": sentinels} if sentinels else {}),
    }
