"""Lines of JSON objects, as users give them to tools and to fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from lmjax.data import json_value
from lmjax.data.text import MAX_RECORD_BYTES
from lmjax.errors import UserError, reason


def records(file: str, content: BinaryIO) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Yields (line, from 1; its bytes; its object) of an open file, blank lines left out.

    Raises:
      UserError: a line is no JSON object, or longer than any.
    """
    number = 0
    while line := content.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if len(line) > MAX_RECORD_BYTES:
            raise UserError(
                f"{file}:{number}: longer than {MAX_RECORD_BYTES >> 20} MiB; give one object per "
                "line"
            )
        if not line.isspace():
            yield number, line, _object(f"{file}:{number}", line)


def _object(place: str, line: bytes) -> dict[str, Any]:
    try:
        found = json_value.parse(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({reason(error)}); give one object per line") from None
    if not isinstance(found, dict):
        raise UserError(f"{place}: no JSON object; give one per line, {{...}}")
    return found
