"""How a family writes down its sizes."""

from __future__ import annotations

from typing import Any


def sized(
    base: dict[str, Any], hidden_size: int, num_layers: int, num_heads: int, **more: Any
) -> dict[str, Any]:
    """Fields of one size: those of the family, the three that every table of sizes has, others."""
    shape = {"hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}
    return {**base, **shape, **more}
