"""The house rules that a reader can check by machine; docs/architecture.md explains them."""

import ast
import re
from pathlib import Path

import lmjax
from lmjax import fields as fields_lib
from lmjax.families import FAMILIES

ROOT = Path(lmjax.__file__).parent

# Imports only go down; rooms on one floor never import each other.
FLOORS = [
    {
        "errors",
        "exit_codes",
        "faults",
        "foreign",
        "config",
        "model_config",
        "section",
        "fields",
        "batch",
        "noise",
        "chips",
        "flops",
        "paths",
        "confine",
        "redact",
    },
    {"data", "objectives", "nn", "parallel", "optim", "hf", "pages"},
    {"families"},
    {"infer"},
    {"train"},
    {"export", "curate", "plan", "report"},
    {"bench"},
    {"runner", "opening", "training", "config_file", "main", "cli", "doctor"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
SOURCES = [p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py"]


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    """Names of lmjax rooms that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lmjax":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("lmjax."):
                    yield alias.name.split(".")[1]


def test_imports_only_go_down():
    for path in SOURCES:
        room = room_of(path)
        for other in imports(path):
            same_floor_zero = FLOOR_OF[room] == FLOOR_OF[other] == 0
            top = FLOOR_OF[room] == FLOOR_OF[other] == len(FLOORS) - 1
            assert other == room or FLOOR_OF[other] < FLOOR_OF[room] or same_floor_zero or top, (
                f"{path.relative_to(ROOT)} imports {other}"
            )


def test_data_and_objectives_never_import_jax():
    for room in (
        "data",
        "objectives",
        "noise",
        "batch",
        "config",
        "model_config",
        "section",
        "fields",
        "flops",
        "foreign",
        "paths",
        "confine",
        "redact",
        "cli",
        "main",
    ):
        for path in [ROOT / f"{room}.py", *(ROOT / room).rglob("*.py")]:
            if not path.exists():
                continue
            top_level = ast.parse(path.read_text()).body
            for node in top_level:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                assert not any(n.split(".")[0] in ("jax", "flax", "optax") for n in names), path


def test_shared_code_names_no_family():
    names = re.compile("|".join(rf"['\"]{family}['\"]" for family in FAMILIES))
    for room in ("nn", "infer", "train", "data", "objectives", "parallel", "optim"):
        for path in (ROOT / room).rglob("*.py"):
            assert not names.search(path.read_text()), path


def test_every_config_field_is_read_somewhere():
    text = "\n".join(p.read_text() for p in SOURCES if p.name != "config.py")
    text += (ROOT / "config.py").read_text().split("class Config(", 1)[0]
    for name in fields_lib.field_names():
        *section, last = name.split(".")
        if f"config.{'.'.join(section)}.model_dump()" in text:
            continue
        assert re.search(rf"\.{last}\b", text), f"config.{name} is read nowhere"


def test_no_catch_all_modules():
    assert not [p for p in SOURCES if p.stem in ("utils", "util", "common", "helpers", "misc")]


def test_encoder_decoders_say_what_their_decoder_starts_with():
    for name, family in FAMILIES.items():
        if family.BASE["architecture"] == "encoder_decoder":
            assert family.DECODER_START in ("pad", "bos", "eos"), name
