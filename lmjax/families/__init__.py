"""Families are data: the fields a family's models share, and its published sizes.

A family is a module with `BASE` (fields of `ModelConfig` that make it that family) and `PRESETS`
(name -> all its fields); one of encoder-decoders also with `DECODER_START`, the name of the special
token in front of what the decoder reads. Nothing below this room knows a family's name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.families import bert, gpt2, llama, t5

FAMILIES = {"bert": bert, "gpt2": gpt2, "llama": llama, "t5": t5}


def resolve(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Fills the `model` group of a raw config from its family and preset.

    Args:
      raw: nested fields as the user wrote them; `family` and `model.preset` choose the fields
        that those of `model` are laid over. Without a preset they are the family's `BASE`.

    Returns:
      A copy, for `config.from_dict`.

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
    """Name of the special token in front of what a family's decoder reads: "pad", "eos", ..."""
    return FAMILIES[family_name].DECODER_START


def _known(field: str, name: Any, names: Iterable[str]) -> str:
    """`name`, if it is one of `names`."""
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
    raise UserError(f"config.{field}={name!r} is unknown; {hint}")
