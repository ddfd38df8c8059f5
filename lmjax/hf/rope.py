"""What configs of transformers say of rotations: `rope_parameters`, in older files two keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmjax.errors import UserError
from lmjax.model_config import ModelConfig

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # as `nn.position.Rope` has them


def read(config: Mapping[str, Any], default_theta: float) -> dict[str, Any]:
    """Fields of `ModelConfig` on rotations.

    Raises:
      UserError: a way of stretching other than Llama 3's.
    """
    said: dict[str, Any] = {}
    for part in (config.get("rope_parameters") or {}, config.get("rope_scaling") or {}):
        older = {"rope_type": part["type"]} if "type" in part else {}
        said |= {**older, **part}
    said.setdefault("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    factor, original = _stretching(said, config.get("max_position_embeddings"))
    return {
        "rope_theta": float(said.get("rope_theta") or config.get("rope_theta") or default_theta),
        "rope_factor": factor,
        "rope_original_positions": original,
    }


def _stretching(said: Mapping[str, Any], max_positions: int | None) -> tuple[float, int]:
    kind = said.get("rope_type") or "default"
    if said.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError("config.json: a rotation of a part of each head is not supported")
    if kind == "default":
        return 1.0, max_positions or 8192
    if kind != "llama3" or any(said.get(k, v) != v for k, v in _LLAMA3.items()):
        raise UserError(
            f"config.json: rope_type={kind!r} ({dict(said)}) is not supported; 'default' is, and "
            "'llama3' with low_freq_factor 1 and high_freq_factor 4"
        )
    original = said.get("original_max_position_embeddings") or max_positions
    return float(said["factor"]), int(original)


def write(model: ModelConfig) -> dict[str, Any]:
    """`rope_parameters`, and the same for readers before transformers 5."""
    said: dict[str, Any] = {"rope_type": "default"}
    if model.rope_factor != 1:
        said = {
            "rope_type": "llama3",
            "factor": model.rope_factor,
            **_LLAMA3,
            "original_max_position_embeddings": model.rope_original_positions,
        }
    older = {"rope_theta": model.rope_theta}
    if model.rope_factor != 1:
        older["rope_scaling"] = dict(said)
    return {"rope_parameters": {**said, "rope_theta": model.rope_theta}, **older}
