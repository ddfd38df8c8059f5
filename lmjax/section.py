"""What every group of config fields is: frozen, strict, and each field *fixed* or *free*.

A fixed field belongs to the recipe: a resumed run refuses to change it. A free field belongs to the
machine or to the reporting (devices, micro-batch, cadences): a resumed run accepts the change and
records it.
"""

from __future__ import annotations

from typing import Any

import pydantic


def _field(default: Any, doc: str, *, free: bool, **checks: Any) -> Any:
    return pydantic.Field(default, description=doc, json_schema_extra={"free": free}, **checks)


def fixed(default: Any, doc: str, **checks: Any) -> Any:
    """A field that a resumed run may not change."""
    return _field(default, doc, free=False, **checks)


def free(default: Any, doc: str, **checks: Any) -> Any:
    """A field that a resumed run may change."""
    return _field(default, doc, free=True, **checks)


class Section(pydantic.BaseModel):
    """A frozen group of fields; unknown names and silent type changes are errors."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )
