"""JSON of others, which may be nested as deeply as nothing that walks through it can go."""

from __future__ import annotations

import json
from typing import Any

_MAX_DEPTH = 100  # so that whatever walks through a value has room on the stack


def parse(content: bytes) -> Any:
    """The value that `content` is the JSON of.

    Raises:
      ValueError: it is no JSON.
      RecursionError: it is nested deeper than 100 lists and objects, wherever it is called from.
    """
    found = json.loads(content)
    if content.count(b"[") + content.count(b"{") > _MAX_DEPTH and _is_deep(found):
        raise RecursionError
    return found


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for part in level
            if isinstance(part, (dict, list))
            for item in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return False
    return True
