"""Lines of JSON objects, as users give them to tools and to fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from lmjax.errors import UserError


def records(file: str, content: BinaryIO) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Yields (line, from 1; its bytes; its object) of an open file, blank lines left out.

    Raises:
      UserError: a line is no JSON object.
    """
    for number, line in enumerate(content, 1):
        if not line.isspace():
            yield number, line, _object(f"{file}:{number}", line)


def _object(place: str, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{place}: not JSON ({why}); give one object per line") from None
    if not isinstance(found, dict):
        raise UserError(f"{place}: no JSON object; give one per line, {{...}}")
    return found
