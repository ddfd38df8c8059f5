"""Ordered regex policies: one value per parameter, by its name.

    weight_decay = ((r".*/(bias|scale)$", 0.0), (r".*", 0.1))

The first expression that matches the whole name wins; a name that none matches is an error, so
nothing is decayed, or spared, by accident.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax

from lmjax.errors import UserError


def name_of(path: Sequence[Any]) -> str:
    """A parameter's name from its key path: 'stack/unit/0/attention/query/kernel'."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def match(policy: Sequence[tuple[str, Any]], name: str, field: str) -> Any:
    """The value of the first expression of `policy` that matches `name`.

    Raises:
      UserError: naming `field` and the parameter if none matches.
    """
    for expression, value in policy:
        if re.fullmatch(expression, name):
            return value
    raise UserError(
        f"config.{field}: no expression matches the parameter {name}; "
        "end the list with ('.*', VALUE)"
    )
