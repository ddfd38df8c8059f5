"""The commands of README and guides, run in order: at few steps, and where a config is for larger
hardware by --dry_run. `tests/test_docs.py` runs start.md as a user does, process by process.

What needs a bucket, the Hub or a program of others is left out here: `tests/test_buckets.py` and
`tests/export/test_hub.py` have stand-ins for those.
"""

import html
import json
import shutil
import subprocess
import sys

import grain  # noqa: F401  (its flags stay)
import jax
import published
import published_tokenizers
import pyarrow as pa
import pytest
import tool_run
from small_run import CORPUS
from test_docs import DOCS, PAGES, ROOT, commands, is_placeholder

QUICK = {"train.num_steps": 3, "eval.num_batches": 1, "eval.num_samples": 0}
QUICK["data.num_workers"] = 0
GUIDES = [ROOT / "README.md", *(DOCS / f"{name}.md" for name in ("configs", "data", "export"))]
GUIDES.append(DOCS / "resume.md")


def runnable(words):
    """(tool, arguments) as it is run here; None where it cannot be."""
    if words[0] != "python" or words[1] == "-c":
        return None
    if any(is_placeholder(word) or "://" in word for word in words):
        return None
    if words[1] == "-m":
        tool, arguments = words[2].removeprefix("lmjax."), words[3:]
    else:
        tool, arguments = words[1].removeprefix("tools/").removesuffix(".py"), words[2:]
    arguments = ["--step=3" if word.startswith("--step=") else word for word in arguments]
    if tool != "main" or {"--mode=eval", "--help_config", "--dry_run"} & {*arguments}:
        return tool, arguments
    config = next((word for word in arguments if word.startswith("--config=")), "_tiny")
    if "_tiny" not in config:  # of a run that is not begun
        arguments = [word for word in arguments if not word.startswith("--workdir=")]
        return tool, [*arguments, "--dry_run"]
    return tool, [*arguments, *(f"--config.{name}={value}" for name, value in QUICK.items())]


def run(tool, arguments):
    """Exit code and what was said on the standard error stream."""
    if tool == "curate":  # whose extractor forks, which a process with JAX in it must not
        command = [sys.executable, f"tools/{tool}.py", *arguments]
        apart = subprocess.run(command, capture_output=True, text=True)
        return apart.returncode, apart.stderr
    done = tool_run.run(tool, *arguments)
    return done.code, done.err


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Programs are compiled once, as most commands go on with a run of another one."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What the pages take to be there: text, two finished runs, something downloaded."""
    root = tmp_path_factory.mktemp("guides")
    rows = [json.loads(line)["text"] for line in CORPUS.read_text().splitlines()[:60]]
    for folder, key in (("my_text", "text"), ("news", "body")):
        (root / folder).mkdir()
        content = "".join(json.dumps({key: text}) + "\n" for text in rows).encode()
        with pa.output_stream(str(root / folder / "a.jsonl.zst"), compression="zstd") as file:
            file.write(content)
    (root / "my_text" / "b.txt").write_text(rows[0])
    (root / "books").mkdir()
    (root / "books" / "one.txt").write_text(rows[1])
    pages = [f"<html><body><article>{html.escape(text)}</article></body></html>" for text in rows]
    (root / "pages").mkdir()
    (root / "pages" / "a.jsonl").write_text(
        "".join(f"{json.dumps({'html': page})}\n" for page in pages)
    )
    (root / "lines.jsonl").write_text('{"text": "A line."}\n')
    held_out = "".join(f"{json.dumps({'text': text})}\n" for text in rows[:20])
    (root / "held_out.jsonl").write_text(held_out)
    for folder in ("configs", "tools"):
        (root / folder).symlink_to(ROOT / folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("HOME", str(root / "home"))
        for name in ("bert", "gpt2"):
            words = f"python -m lmjax.main --config=configs/{name}_tiny.py"
            tool, arguments = runnable([*words.split(), f"--workdir=runs/{name}_tiny"])
            assert tool_run.run(tool, *arguments).code == 0
            if name == "bert":  # as if run and store had come from another machine
                shutil.copytree(root / "runs" / "bert_tiny", root / "copied" / "bert_tiny")
                (manifest,) = (root / "home").rglob("manifest.json")
                shutil.copytree(manifest.parent, root / "elsewhere" / "store")
    for name in ("bert", "bert-base-uncased"):
        folder = root / "downloaded" / name
        folder.mkdir(parents=True)
        published.make(folder, "bert", ids={"pad": 0}, vocab_size=640, max_positions=64)
        published_tokenizers.wordpiece(folder)
    return root


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_command_of_the_page_runs(page, place, tmp_path, monkeypatch):
    here = shutil.copytree(place, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here / "home"))
    number = 0
    for words in commands(page):
        if (found := runnable(words)) is None:
            continue
        code, err = run(*found)
        assert code == 0, f"{' '.join(words)}: {err}"
        number += 1
    assert number >= 5


def test_readmes_have_the_same_commands():
    """README.zh.md leaves some out, and has none of its own."""
    english, chinese = (list(commands(ROOT / name)) for name in ("README.md", "README.zh.md"))
    assert [words for words in chinese if words not in english] == []
    assert len(chinese) > 20
    assert ROOT / "README.zh.md" in PAGES
