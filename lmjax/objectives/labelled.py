"""What objectives on labelled examples share: fields of a record, framed texts, rows.

An example is a row of its own. Its texts stand as those of pre-training did, between the special
tokens that the model knows (`objective.begins_with_bos`), two of them one behind the other:

    bos A eos        bos A eos B eos        A eos        A eos B eos

Dimension key: B rows, T length, P predictions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmjax.batch import Batch, Ids, Spec
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.objectives.description import Frame

_INTS, _FLOATS = ("inputs", "segment_ids", "positions"), ("weights", "content_weights")


def field(record: Mapping[str, Any], name: str) -> Any:
    """A field of a record.

    Raises:
      UserError: it is not there.
    """
    if record.get(name) is None:
        found = ", ".join(map(repr, record)) or "none"
        raise UserError(
            f"has no {name}, but the fields {found}; name the one that holds it, as in "
            f"--config.data.fields={name}=THEIR_NAME"
        )
    return record[name]


def text(record: Mapping[str, Any], name: str) -> str:
    """A field that holds text.

    Raises:
      UserError: it is not there, no text, or nothing but white space.
    """
    value = field(record, name)
    if not isinstance(value, str):
        raise UserError(f"{name} is {shown(value)}, not text; give it in quotes")
    if not value.strip():
        raise UserError(f"{name} is empty; take the line out, or write something")
    return value


def texts(record: Mapping[str, Any], name: str) -> list[str]:
    """A field that holds a list of strings.

    Raises:
      UserError: it is not there or something else, or one is empty.
    """
    value = field(record, name)
    if not isinstance(value, list) or not value:
        raise UserError(f"{name} is {shown(value)}, not a list of strings; give [TEXT, TEXT, ...]")
    for index, one in enumerate(value):
        if not isinstance(one, str) or not one.strip():
            raise UserError(f"{name}[{index}] is {shown(one)}, not text; give it in quotes")
    return value


def label(record: Mapping[str, Any], name: str) -> str:
    """A field that holds the name of a class: text, or a whole number as text.

    Raises:
      UserError: it is not there or something else.
    """
    value = field(record, name)
    if isinstance(value, bool | int):
        return str(value)
    if not isinstance(value, str) or not value:
        raise UserError(f"{name} is {shown(value)}, not the name of a class; give text or a number")
    return value


def number_of(name: str, value: str, labels: Sequence[str]) -> int:
    """The number of a class.

    Raises:
      UserError: training has none of this name.
    """
    if value not in labels:
        raise UserError(
            f"{name} is {value!r}, and the examples of training have only "
            f"{', '.join(map(repr, labels[:20]))}{', ...' * (len(labels) > 20)}; correct it, or "
            "put examples of it into data.path"
        )
    return labels.index(value)


def shown(value: Any) -> str:
    """A value in a message."""
    return json.dumps(value, ensure_ascii=False, default=repr)[:40]


def framed(
    ids: Ids, begins_with_bos: bool, parts: Sequence[np.ndarray], room: int, cut: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Texts between special tokens.

    Args:
      ids: the special ones.
      begins_with_bos: whether bos stands in front.
      parts: ids of one text or of two.
      room: places that there are.
      cut: which of the texts is cut at its end where they are too long.

    Returns:
      (int32 ids, the number of the text that each belongs to, the places that they take uncut).
    """
    lead = [ids.bos] if begins_with_bos else []
    needed = len(lead) + sum(len(part) + 1 for part in parts)
    parts = list(parts)
    if needed > room:
        parts[cut] = parts[cut][: max(len(parts[cut]) - needed + room, 0)]
    pieces = [np.array(lead, np.int32), *(np.append(part, ids.eos) for part in parts)]
    number = np.repeat([0, *range(len(parts))], [len(piece) for piece in pieces])
    return np.concatenate(pieces).astype(np.int32)[:room], number.astype(np.int32)[:room], needed


def spec(num_rows: int, length: int, num_targets: int, *more: str) -> Spec:
    """Shapes and dtypes of `reading` with targets.

    Args:
      num_rows: B.
      length: T.
      num_targets: P.
      more: "predict_at" where P are positions of the row, "token_types" where there are.
    """
    read, said = (num_rows, length), (num_rows, num_targets)
    fields: Spec = dict.fromkeys(_INTS, (read, np.int32))
    fields |= {name: (said if name == "predict_at" else read, np.int32) for name in more}
    fields["targets"] = (said, np.int32)
    return fields | dict.fromkeys(_FLOATS, (said, np.float32))


def reading(inputs_T: np.ndarray) -> Batch:
    """The fields that a model reads of one text, without B."""
    return {
        "inputs": np.asarray(inputs_T, np.int32),
        "segment_ids": np.ones(len(inputs_T), np.int32),
        "positions": np.arange(len(inputs_T), dtype=np.int32),
    }


def saying(targets_P: Sequence[int], weights_P: Sequence[float] | None = None) -> Batch:
    """The fields that it is to say, without B; without weights all count alike."""
    weights = np.ones(len(targets_P)) if weights_P is None else np.asarray(weights_P)
    targets = {"targets": np.asarray(targets_P, np.int32)}
    return targets | dict.fromkeys(_FLOATS, weights.astype(np.float32))


def frame(config: Config) -> Frame:
    """Names of the special tokens around a text."""
    return (("bos",) if config.objective.begins_with_bos else (), ("eos",))


def behind(prefix: str) -> str:
    """What a description adds of the text in front of every prompt."""
    return f", which follows {prefix!r}" if prefix else ""
