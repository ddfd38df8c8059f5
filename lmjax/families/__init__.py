"""Families are data: the fields a family's models share, and its published sizes.

A family is a module with `BASE` (fields of `ModelConfig` that make it that family), `PRESETS`
(name -> all its fields) and `FORMATS`, the stock classes of transformers that its models are read
from and written for (`hf.format.Format`); one of encoder-decoders also with `DECODER_START`, the
name of the special token in front of what the decoder reads. Nothing below this room knows a
family's name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from lmjax.config import Config
from lmjax.errors import UserError, shown
from lmjax.families import bart, bert, bloom, gpt2, llama, modernbert, roberta, t5

FAMILIES = {
    "bert": bert,
    "roberta": roberta,
    "modernbert": modernbert,
    "gpt2": gpt2,
    "bloom": bloom,
    "llama": llama,
    "t5": t5,
    "bart": bart,
}

# model_type of a config.json -> (family, format).
FORMATS = {
    fmt.model_type: (name, fmt) for name, module in FAMILIES.items() for fmt in module.FORMATS
}


def resolve(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Fills the `model` group of a raw config from its family and preset.

    Args:
      raw: nested fields as the user wrote them; `family` and `model.preset` choose the fields
        that those of `model` are laid over. Without a preset they are the family's `BASE`.

    Returns:
      A copy, for `fields.from_dict`.

    Raises:
      UserError: on an unknown family or preset, naming the nearest ones.
    """
    family_name = raw.get("family", Config.model_fields["family"].default)
    family = FAMILIES[_known("family", family_name, FAMILIES)]
    model = dict(raw.get("model") or {})
    preset = model.get("preset")
    fields = family.BASE
    if preset is not None:
        fields = family.PRESETS[_known("model.preset", preset, family.PRESETS)]
    return {**raw, "family": family_name, "model": {**fields, **model}}


def decoder_start(family_name: str) -> str:
    """Name of the special token in front of what a family's decoder reads: "pad", "eos", ...

    "pad", as T5 has it, where a config makes an encoder-decoder of a family without one.
    """
    return getattr(FAMILIES[family_name], "DECODER_START", "pad")


def published_objective(family_name: str) -> dict[str, Any]:
    """Fields of the objective that a family's published models were trained by.

    Empty where it is the usual one of their architecture.
    """
    return dict(getattr(FAMILIES[family_name], "OBJECTIVE", {}))


def _known(field: str, name: Any, names: Iterable[str]) -> str:
    """`name`, if it is one of `names`."""
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
    raise UserError(f"config.{field}={shown(name)} is unknown; {hint}")
