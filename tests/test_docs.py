"""What README and docs say is there: links, commands, flags, fields, configs; and the site builds.

Code fences marked `bash` hold commands, and so do inline code spans that begin like one. Names in
capitals stand for a value of the reader's. `docs/start.md` is run as it stands, but for fewer steps
(see `QUICK`) and without the commands of `NOT_RUN`.
"""

import ast
import codecs
import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_run import CORPUS

from lmjax import batch as batch_lib
from lmjax import config_file, flops, objectives
from lmjax import fields as fields_lib
from lmjax.batch import Ids
from lmjax.data import text as text_lib
from lmjax.errors import UserError
from lmjax.noise import RowNoise
from lmjax.objectives.description import Description
from lmjax.train import setup
from lmjax.train.console import count

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "README.zh.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(DOCS.rglob("*.md")),
]
PAGES = [page for page in PAGES if "_build" not in page.parts]
FAMILY = {"encoder": "bert", "decoder": "gpt2", "encoder_decoder": "t5"}
CONFIGS = sorted((ROOT / "configs").glob("*.py"))

# Programs of others that a page may call.
PROGRAMS = {
    "[",
    "aws",
    "bash",
    "cd",
    "docker",
    "echo",
    "export",
    "gcloud",
    "git",
    "head",
    "hf",
    "jupyter",
    "kubectl",
    "ls",
}
PROGRAMS |= {
    "mkdir",
    "pip",
    "pre-commit",
    "printf",
    "pytest",
    "ruff",
    "sbatch",
    "sha256sum",
    "sleep",
    "sphinx-build",
}
PROGRAMS |= {"tail", "tensorboard", "tmux", "wandb"}
SHELL_WORDS = {"until", "while", "do", "done", "nohup"}

FIELDS = fields_lib.field_names()
NO_FIELDS = {"model.head", "model.safetensors", "model.trunk", "tokenizer.json", "tokenizer.model"}

NOT_RUN = {"pip", "tensorboard"}  # in start.md: installations, and a server
QUICK = ("--config.train.num_steps=4", "--config.eval.num_batches=1")  # of training commands there


def relative(page):
    return str(page.relative_to(ROOT))


def fences(page, *languages):
    """Content of the code fences in some language, in order."""
    pattern = rf"^```(?:{'|'.join(languages)})\n(.*?)^```"
    return re.findall(pattern, page.read_text(), re.DOTALL | re.MULTILINE)


def without_fences(page):
    return re.sub(r"^(`{3,}).*?^\1", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """Ids of a page's headings, as GitHub and MyST make them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", without_fences(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower())
        found.add(slug.strip().replace(" ", "-"))
    return found


def commands(page):
    """Words of every simple command of a page."""
    spans = [
        span
        for span in re.findall(r"`([^`\n]+)`", without_fences(page))
        if span.startswith(("python -m lmjax", "python tools/"))
    ]
    return [command for text in (*fences(page, "bash", "sh"), *spans) for command in simple(text)]


def simple(text):
    """The simple commands of a piece of shell, as lists of words; redirections are left out."""
    text = re.sub(r"(^|\s)#[^\n]*", r"\1", text.replace("\\\n", " "))
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    found, words, target = [], [], False
    for word in (*lexer, "\n"):
        if set(word) <= set(";&|\n"):
            while words and words[0] in SHELL_WORDS:
                words = words[1:]
            if words:
                found.append(words)
            words = []
        elif set(word) <= set("<>"):
            target = True
        elif target:
            target = False
        else:
            words.append(word)
    return found


def flags_of(file):
    """Name -> choices (None: any) of the absl flags that a script defines; and of its fields."""
    tree = ast.parse(file.read_text())
    found, takes_fields = {}, False
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr.startswith("DEFINE_"):
            name, kind = ast.literal_eval(node.args[0]), node.func.attr
            found[name] = ast.literal_eval(node.args[2]) if kind == "DEFINE_enum" else None
            if kind == "DEFINE_bool":
                found[f"no{name}"] = None
        takes_fields |= node.func.attr == "run_with_overrides"
    return found, takes_fields


def is_placeholder(value):
    return bool(re.search(r"\b[A-Z]{2,}\b", value))


def check_command(words):
    """Raises AssertionError or UserError where the command cannot be meant."""
    program, *arguments = words
    if program != "python":
        assert program in PROGRAMS, f"{program}: unknown program"
        return
    if arguments[:1] == ["-c"]:
        return compile(arguments[1], "command", "exec")
    if arguments[0] == "-m":
        assert arguments[1].startswith("lmjax"), arguments[1]
        file, arguments = ROOT / f"{arguments[1].replace('.', '/')}.py", arguments[2:]
    else:
        file, arguments = ROOT / arguments[0], arguments[1:]
    assert file.is_file(), f"{file} is not there"
    known, takes_fields = flags_of(file)
    given, overrides = {}, {}
    for argument in arguments:
        found = re.fullmatch(r"--([\w.]+)(?:=(.*))?", argument, re.DOTALL)
        assert found, f"{argument}: no flag"
        name, value = found.groups()
        if name.startswith("config."):
            assert takes_fields, f"{file.name} takes no fields"
            fields_lib.check_name(name.removeprefix("config."))
            if not is_placeholder(value):
                field = name.removeprefix("config.")
                overrides[field] = fields_lib.parse_value(field, value)
            continue
        assert name in known, f"{file.name} has no flag --{name}"
        choices = known[name]
        assert choices is None or is_placeholder(value) or value in choices, argument
        given[name] = value
    config = given.get("config") or ""
    if config.startswith("configs/"):
        return config_file.make(raw_of(ROOT / config), overrides)
    return config_file.make({}, {k: v for k, v in overrides.items() if "seq_len" not in k})


def raw_of(file):
    """A config's fields; one that takes its model from another run gets a family here."""
    raw = config_file.load(str(file))
    if "family" not in raw:
        raw["family"] = FAMILY[objectives.OBJECTIVES[raw["objective"]["name"]].ARCHITECTURE]
    return raw


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_fences(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{relative(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(file), f"{relative(page)} links to {target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_are_real(page):
    for words in commands(page):
        try:
            check_command(words)
        except (AssertionError, UserError) as error:
            pytest.fail(f"{relative(page)}: {shlex.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_fields_in_the_text_are_real(page):
    text = page.read_text()
    for name in re.findall(r"--config\.([a-z][\w.]*\w)", text):
        if name != "a.b":  # what stands for any
            fields_lib.check_name(name)
    sections = {name.split(".")[0] for name in FIELDS if "." in name}
    for section, last in re.findall(r"`(?:config\.)?([a-z]+)\.([a-z_]+)(?:=[^`]*)?`", text):
        if section in sections and f"{section}.{last}" not in NO_FIELDS:
            is_module = (ROOT / "lmjax" / section / f"{last}.py").exists()
            assert is_module or f"{section}.{last}" in FIELDS, f"{section}.{last}"
    for file in re.findall(r"configs/\w+\.py", text):
        assert (ROOT / file).exists() or is_placeholder(file), f"{relative(page)}: {file}"


@pytest.mark.parametrize(
    "words",
    [
        "python -m lmjax.main --confg=configs/bert_tiny.py",
        "python -m lmjax.main --mode=fly",
        "python -m lmjax.main --config=configs/bert_tiny.py --config.data.seq_len=1000",
        "python -m lmjax.main --config.data.nothing=1",
        "python tools/train_tokenizer.py --config.data.path=x",
        "python tools/missing.py",
        "curlish https://example.org",
    ],
)
def test_a_wrong_command_is_seen(words):
    (command,) = simple(words)
    with pytest.raises((AssertionError, UserError)):
        check_command(command)


def test_commands_are_taken_apart():
    text = "a --x='1 2' > file && b \\\n  c  # why\nuntil d; do sleep 1; done\ne | f"
    words = [["a", "--x=1 2"], ["b", "c"], ["d"], ["sleep", "1"], ["e"], ["f"]]
    assert simple(text) == words


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_is_on_its_page_with_its_numbers(file):
    page = (DOCS / "configs.md").read_text()
    (row,) = re.findall(rf"^\| \[`{file.name}`\].*$", page, re.MULTILINE)
    assert f"--config=configs/{file.name}" in page
    raw = config_file.load(str(file))
    if (name := raw.get("objective", {}).get("name")) in objectives.LABELLED:
        module, train = objectives.OBJECTIVES[name], raw["train"]
        fields = ", ".join(f"`{field}`" for field in module.FIELDS)
        recipe = f"{train['num_steps']:,} steps of {train['global_batch_size']}"
        assert row.split(" | ")[1:] == [module.ARCHITECTURE, fields, f"{recipe} |"]
        return
    config = setup.resolve(config_file.make(config_file.load(str(file)), {}))
    ids = Ids(num_ids=config.tokenizer.vocab_size, num_rows=config.model.vocab_size)
    lengths = flops.lengths(objectives.make(config, ids).spec(1))
    rows = config.train.num_steps * config.train.global_batch_size
    numbers = [
        sum(flops.num_params(config.model).values()),
        rows * lengths.tokens,
        rows * flops.flops_per_row(config.model, lengths).full,
    ]
    assert [cell.strip() for cell in row.split("|")[2:5]] == [count(n) for n in numbers]


def test_every_page_is_in_the_contents():
    listed = "\n".join(fences(DOCS / "index.md", "{toctree}"))
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or re.search(rf"^{page.stem}$", listed, re.MULTILINE), page


def test_the_objective_of_the_guide():
    source = fences(DOCS / "extend.md", "python")[0]
    exec(compile(source, "extend.md", "exec"), guide := {"__name__": __name__})
    config = config_file.make({"data": {"seq_len": 16}}, {})
    objective = guide["make"](config, Ids(num_ids=90, num_rows=128))
    rng, index = np.random.default_rng(0), np.arange(500)
    tokens = rng.integers(5, 90, (500, objective.window_length)).astype(np.int32)
    documents = np.repeat(index[:, None], objective.window_length, axis=1)
    documents[0] = -1
    make = lambda rows: objective(tokens[rows], documents[rows], RowNoise(0, rows * 0, rows))
    whole = make(index)
    batch_lib.check(whole, objective.spec(500))
    for name, field in make(index[7:9]).items():
        assert np.array_equal(field, whole[name][7:9]), name
    assert set(vars(guide["SuffixLM"])) >= {"exact_likelihood", "window_stride"}
    assert {"NUM_SENTINELS", "ARCHITECTURE"} <= guide.keys()
    assert isinstance(guide["describe"](config), Description)
    assert whole["weights"][0].sum() == 0
    assert (np.diff(whole["weights"][1:]) >= 0).all()  # once it predicts, it goes on
    assert 0.4 < whole["weights"][1:].mean() < 0.65


def test_the_reader_of_the_guide():
    source = fences(DOCS / "extend.md", "python")[1]
    exec(
        compile(source, "extend.md", "exec"),
        guide := {**vars(text_lib), "codecs": codecs, "csv": csv},
    )
    content = '\ufeffid,text\r\n1,"a, b\nc"\n2\n3,d\n'.encode()
    for skip, expected in ((0, [(0, "a, b\nc"), (1, None), (2, "d")]), (2, [(2, "d")])):
        counts = Counter()
        assert list(guide["_csv"]("x.csv", io.BytesIO(content), "text", counts, skip)) == expected
        assert counts["no_text"] == (skip == 0)
    with pytest.raises(UserError, match=r"x\.csv: no column 'body'; it has id, text"):
        list(guide["_csv"]("x.csv", io.BytesIO(content), "body", Counter(), 0))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_builds_without_a_warning(tmp_path):
    for module in ("sphinx", "myst_parser", "sphinx_book_theme"):
        pytest.importorskip(module)
    command = ["-W", "-n", "--keep-going", "-q", "-d", tmp_path / "trees", DOCS, tmp_path / "html"]
    subprocess.run(
        [sys.executable, "-m", "sphinx", *map(str, command)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert "Ten minutes" in (tmp_path / "html" / "start.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_minutes_in_a_few_steps(tmp_path):
    """Runs every command of start.md in order, and its Python where transformers is there."""
    (tmp_path / "my_text").mkdir()
    for number, line in enumerate(CORPUS.read_text().splitlines()[:60]):
        (tmp_path / "my_text" / f"{number}.txt").write_text(json.loads(line)["text"])
    for folder in ("configs", "tools"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    environment = os.environ | {
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_backend_optimization_level=1",  # compiles quicker
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "HF_HUB_OFFLINE": "1",
    }
    page = (DOCS / "start.md").read_text()
    for language, content in re.findall(
        r"^```(bash|python)\n(.*?)^```", page, re.DOTALL | re.MULTILINE
    ):
        if language == "python":
            if "transformers" in content:
                pytest.importorskip("transformers")
                pytest.importorskip("torch")
            script = f"{shlex.quote(sys.executable)} -c {shlex.quote(content)}"
        else:
            script = "\n".join(filter(None, map(_quick, content.replace("\\\n", "").splitlines())))
        subprocess.run(["bash", "-ec", script], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "exported" / "config.json").exists()
    assert (tmp_path / "my_store" / "manifest.json").exists()


def _quick(line):
    """A line of start.md as it is run: by this Python, and with few steps."""
    (words, *_) = simple(line)
    if words[0] in NOT_RUN:
        return None
    trains = words[1:3] == ["-m", "lmjax.main"] and not {"--dry_run", "--mode=eval"} & {*words}
    more = f" {' '.join(QUICK)}" if trains else ""
    return re.sub(r"^python\b", shlex.quote(sys.executable), line) + more


def test_the_tests_that_reliability_names_are_there():
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "reliability.md").read_text()))
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert not {name for name in named if f"def {name}(" not in sources}
