"""Config fields by their dotted names: from files and command lines to a `Config`, and back."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pydantic

from lmjax import redact
from lmjax.config import Config
from lmjax.errors import UserError
from lmjax.section import Section


def leaves(section: Section, prefix: str = "") -> Iterator[tuple[str, Any, bool]]:
    """Yields (dotted name, value, is free) of every field, depth first."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, info.json_schema_extra["free"]


def field_names() -> dict[str, bool]:
    """Dotted name of every field -> whether it is free."""
    return {name: is_free for name, _, is_free in leaves(Config())}


def check_name(name: str) -> None:
    """Raises UserError with the nearest field name if `name` (dotted) is no field."""
    names = field_names()
    if name in names:
        return
    sections = {n.rsplit(".", 1)[0] for n in names if "." in n}
    if name in sections:
        raise UserError(
            f"config.{name} is a group of fields; set one of them, e.g. "
            f"--config.{next(n for n in names if n.startswith(name + '.'))}=VALUE"
        )
    last = name.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6) or [
        n
        for n in names
        if n.rsplit(".", 1)[-1]
        in difflib.get_close_matches(last, [m.rsplit(".", 1)[-1] for m in names], n=1, cutoff=0.6)
    ]
    hint = f"did you mean config.{near[0]}?" if near else "see --help_config for all fields"
    raise UserError(f"unknown config field: config.{name}; {hint}")


def parse_value(name: str, text: str) -> Any:
    """A command line's text -> the value of a field: a Python literal, or the text itself.

    Raises:
      UserError: `name` is no field.
    """
    check_name(name)
    section: type[Section] = Config
    *parents, last = name.split(".")
    for parent in parents:
        section = section.model_fields[parent].annotation
    kinds = get_args(section.model_fields[last].annotation) or (
        section.model_fields[last].annotation,
    )
    if str in kinds and text != "None":  # a folder may well be called 2024
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested too deep
        return text


def flatten(raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> {dotted name: value}."""
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{dotted name: value} -> nested dict."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return nested


def _tuples(value: Any) -> Any:
    """Lists (from JSON and from config files) become tuples, so that the result hashes."""
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def from_dict(raw: Mapping[str, Any]) -> Config:
    """Checks a nested mapping of fields and lays it over the defaults.

    Raises:
      UserError: on an unknown name (with the nearest one), a wrong type, a value out of range,
        an impossible combination or a URL with credentials; one line, naming field and value.
    """
    flat = flatten(raw)
    for name, value in flat.items():
        check_name(name)
        for text in _texts(value):
            redact.check_url(text, f"config.{name}")
    try:
        return Config.model_validate(unflatten({k: _tuples(v) for k, v in flat.items()}))
    except pydantic.ValidationError as error:
        raise UserError(_describe(error)) from None


def _describe(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    names = field_names()
    parts = [str(p) for p in first["loc"]]
    while parts and ".".join(parts) not in names:
        parts.pop()
    message = first["msg"].removeprefix("Value error, ")
    if not parts:  # a check over several fields names them itself
        return f"config: {message}"
    field = ".".join(parts)
    got = first["input"]
    fix = "" if ";" in message else "; --help_config lists all fields with their defaults"
    said = f"{got!r:.200} ({type(got).__name__})"
    return f"config.{field}={said}: {message[:1].lower()}{message[1:]}{fix}"


def replace(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config with some dotted fields set to other values, checked anew."""
    return from_dict(unflatten(flatten(to_dict(config)) | dict(changes)))


def to_dict(config: Config) -> dict[str, Any]:
    """The whole config as nested plain values, ready for JSON."""
    return config.model_dump(mode="json")
