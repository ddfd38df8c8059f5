"""Text for the tests of curation, and looks at what became of it."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
from small_run import CORPUS

from lmjax.curate import curation
from lmjax.curate.recipe import Recipe

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "curate.py"


def prose(count, characters=1200):
    """Passages of novels, of whole paragraphs and at least so many characters."""
    found = []
    for line in CORPUS.read_text().splitlines():
        record = json.loads(line)
        if record["source"] != "austen":
            continue
        passage = ""
        for paragraph in record["text"].split("\n\n"):
            lines = " ".join(paragraph.split())
            if lines.endswith("."):
                passage += f"{lines}\n"
            if len(passage) > characters:
                found.append(passage.strip())
                passage = ""
            if len(found) == count:
                return found
    raise AssertionError(len(found))


def write(path, records):
    lines = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in records)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def curate(folder, records, name="text.jsonl", **recipe):
    """Ledger and folder of records, curated in this process."""
    path = write(folder / name, records)
    out = str(folder / "out")
    return curation.curate([str(path)], out, Recipe(**recipe), workers=1), out


def run(*arguments, check=True, **settings):
    """The tool in a process of its own."""
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)],
        check=check,
        capture_output=True,
        text=True,
        **settings,
    )


def lines(folder):
    """The documents of all files below a folder, by file."""
    found = {}
    for path in sorted(Path(folder).rglob("*.jsonl.zst")):
        with pa.input_stream(str(path), compression="zstd") as stream:
            content = stream.read().decode().splitlines()
        found[str(path.relative_to(folder))] = [json.loads(line) for line in content]
    return found


def documents(folder):
    return [document for some in lines(folder).values() for document in some]


def sums(folder):
    """SHA-256 of everything that a curation leaves, by name; of its ledger, without its times."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and path.name != ".curate.lock":
            content = path.read_bytes()
            if path.name == "ledger.json":
                content = json.dumps({**json.loads(content), "times": None}).encode()
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def shingles(text):
    """Runs of five words, as the definition has it, and none of the engine's code."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def jaccard(a, b):
    return len(a & b) / max(1, len(a | b))
