"""docs/lmjax_colab.ipynb: fit to be committed, and executed from top to bottom."""

import ast
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lmjax import fields as fields_lib

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "lmjax_colab.ipynb"
CONSTRAINTS = ROOT / "docs" / "colab_constraints.txt"
KEPT = {"jax": "0.12.0", "jaxlib": "0.12.0", "numpy": "2.3.0", "protobuf": "5.29.5"}


@pytest.fixture(scope="module")
def notebook():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cells(notebook):
    """{id: source}"""
    return {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}


def execute(source, **names):
    exec(compile(source, "cell", "exec"), names)
    return names


def test_is_committed_without_outputs(notebook, cells):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len(cells) == len(notebook["cells"])  # each id once
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            ast.parse("".join(cell["source"]))
    text = "\n".join(cells.values())
    assert not re.search(r"/(home|root|tmp|work|Users|opt)/", text)
    assert "not run on T4/TPU" in cells["intro"]
    if importlib.util.find_spec("nbformat"):  # extra [notebook]
        importlib.import_module("nbformat").validate(notebook)


def test_names_only_what_there_is(cells):
    text = "\n".join(source for name, source in cells.items() if name not in ("source", "install"))
    for file in re.findall(r"\b(?:tools|configs|docs)/\w+\.\w+", text):
        assert (ROOT / file).exists(), file
    for field in re.findall(r"--config\.([\w.]+)=", text):
        fields_lib.check_name(field)
    sources = [ROOT / "lmjax" / "main.py", *(ROOT / "tools").glob("*.py")]
    defined = re.findall(r'DEFINE_\w+\(\s*"(\w+)"', "\n".join(p.read_text() for p in sources))
    assert set(re.findall(r"--(\w+)", text)) <= {*defined, "config"}


def needs():
    """What lmjax and the notebook need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return map(Requirement, [*project["dependencies"], *extras["card"], *extras["parity"]])


def test_constraints_leave_the_machine_alone(cells):
    lines = CONSTRAINTS.read_text().splitlines()
    assert re.match(r"# 20\d\d-\d\d-\d\d:", lines[0])
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    needed = {need.name.lower(): need.specifier for need in needs()}
    for pin in pins:
        assert pin.name not in {*KEPT, "flax", "torch"}
        (version,) = pin.specifier
        assert needed[pin.name.lower()].contains(version.version), pin


def found(cells, source, folder, monkeypatch):
    monkeypatch.chdir(folder)
    return execute(cells["source"], SOURCE=source)["ROOT"]


def test_finds_lmjax(cells, tmp_path, monkeypatch, capsys):
    assert found(cells, "", NOTEBOOK.parent, monkeypatch) == ROOT
    with pytest.raises(SystemExit, match=r"SOURCE is empty .* set SOURCE above to its git URL"):
        found(cells, "", tmp_path, monkeypatch)
    with pytest.raises(SystemExit, match="SOURCE=elsewhere holds no lmjax"):
        found(cells, "elsewhere", tmp_path, monkeypatch)
    checkout = tmp_path / "up" / "lmjax-main"
    checkout.mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    assert found(cells, str(checkout), tmp_path, monkeypatch) == checkout
    packed = shutil.make_archive(str(tmp_path / "lmjax"), "zip", tmp_path / "up")
    assert found(cells, packed, tmp_path, monkeypatch) == tmp_path / "lmjax_source" / "lmjax-main"
    with pytest.raises(SystemExit, match="git could not clone SOURCE"):
        found(cells, f"file://{tmp_path}/none.git", checkout, monkeypatch)


def install(cells, monkeypatch, versions, *plans):
    """Runs the install cell on a machine with these packages; pip plans to install these, in turn.

    Returns:
      The commands that were run and, for each, the constraints that it was given.
    """
    commands, given = [], []
    answers = list(plans)

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    def pip(command, **_):
        commands.append(command)
        options = dict(
            part.split("=", 1) for part in command if part.startswith("--") and "=" in part
        )
        given.append(Path(options["--constraint"]).read_text() if "--constraint" in options else "")
        if "--dry-run" in command:
            if (plan := answers.pop(0)) is None:
                return subprocess.CompletedProcess(command, 1, "", "ERROR: ResolutionImpossible")
            packages = [{"metadata": {"name": n, "version": v}} for n, v in plan.items()]
            Path(options["--report"]).write_text(json.dumps({"install": packages}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(subprocess, "run", pip)
    stop = execute("def stop(line): raise SystemExit(f'error: {line}')")["stop"]
    execute(
        cells["install"],
        ROOT=ROOT,
        KNOWN_VERSIONS=False,
        pathlib=pathlib,
        subprocess=subprocess,
        stop=stop,
    )
    return commands, given


def test_installs_nothing_where_all_is_here(cells, monkeypatch, capsys):
    everything = dict.fromkeys((need.name for need in needs()), "9999")
    assert install(cells, monkeypatch, everything) == ([], [])
    assert "nothing was installed" in capsys.readouterr().out


def test_installs_beside_what_is_here(cells, monkeypatch):
    commands, given = install(cells, monkeypatch, KEPT, {"grain": "0.2.18", "lmjax": "0.1.0"})
    dry, real = commands
    assert "--dry-run" in dry
    assert "--dry-run" not in real
    assert f"{ROOT}[card]" in real
    assert given[0] == given[1] == "".join(f"{n}=={v}\n" for n, v in KEPT.items())


@pytest.mark.parametrize(
    ("versions", "plans", "words"),
    [
        (
            {"jax": "0.7.2"},
            [],
            r"needs jax>=0\.10\.2 and this machine has jax 0\.7\.2; nothing was",
        ),
        (
            {},
            [None, {"protobuf": "6.0"}],
            r"would replace protobuf 5\.29\.5 -> 6\.0 of this machine",
        ),
        ({}, [{"numpy": "3.0"}], "pip would replace numpy of this machine; nothing was installed"),
        ({}, [None, None], "pip cannot install lmjax here: ERROR: ResolutionImpossible"),
    ],
)
def test_stops_before_it_replaces(cells, monkeypatch, versions, plans, words):
    with pytest.raises(SystemExit, match=words):
        install(cells, monkeypatch, KEPT | versions, *plans)


def test_runs_on_drive(cells, monkeypatch, capsys):
    names = {"pathlib": pathlib}
    runs = execute(cells["drive"], KEEP_ON_DRIVE=True, **names)["RUNS"]
    assert runs == Path("lmjax_runs").absolute()
    assert "this is not Colab" in capsys.readouterr().out
    mounted = []
    colab = types.ModuleType("google.colab")
    colab.drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    runs = execute(cells["drive"], KEEP_ON_DRIVE=True, **names)["RUNS"]
    assert (str(runs), mounted) == ("/content/drive/MyDrive/lmjax_runs", ["/content/drive"])


def pip_plan(tmp_path):
    """What pip would install for the notebook beside what is here: {name: version}."""
    kept = [f"{name}=={importlib.metadata.version(name)}\n" for name in KEPT]
    constraints, report = tmp_path / "constraints.txt", tmp_path / "report.json"
    constraints.write_text("".join(kept))
    options = ["--quiet", "--dry-run", f"--report={report}", f"--constraint={constraints}"]
    command = [sys.executable, "-m", "pip", "install", *options, "-e", f"{ROOT}[card]"]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("no package index within reach")
    assert done.returncode == 0, done.stderr
    return {p["metadata"]["name"]: p for p in json.loads(report.read_text())["install"]}


@pytest.mark.slow
def test_pip_leaves_the_machine_alone(tmp_path):
    assert not set(KEPT) & set(pip_plan(tmp_path))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """({id: text of its outputs}, {id: types of its outputs}, folder) of 30 steps of each model."""
    for module in ("ipykernel", "matplotlib", "torch", "transformers"):
        pytest.importorskip(module)
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    folder = tmp_path_factory.mktemp("notebook")
    environment = os.environ | {
        "HOME": str(folder / "home"),  # nothing of this machine's caches
        "HF_HUB_OFFLINE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jit"),
        "XLA_FLAGS": "--xla_backend_optimization_level=1",  # one device, quick to compile
        "LMJAX_NOTEBOOK_SOURCE": str(ROOT),
        "LMJAX_NOTEBOOK_STEPS": "30",
    }
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    paths = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=paths).execute(env=environment)
    outputs = {cell["id"]: cell.get("outputs", []) for cell in notebook.cells}
    text = {name: "".join(o.get("text", "") for o in these) for name, these in outputs.items()}
    kinds = {name: {k for o in these for k in o.get("data", ())} for name, these in outputs.items()}
    return {name: _ANSI.sub("", t) for name, t in text.items()}, kinds, folder


_ANSI = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_top_to_bottom(executed):
    text, kinds, folder = executed
    assert "nothing was installed" in text["install"]
    assert f"runs are kept in {folder}" in text["drive"]
    # Batches, decoded.
    assert re.search(r"inputs   <s>.*<mask>\{.+\}.*</s>", text["batches"])
    assert re.search(r"encoder  .*<extra_id_0>", text["spans"])
    assert re.search(r"targets  <extra_id_0>.*<extra_id_1>", text["spans"])
    # A run that was stopped went on, and all have ended.
    assert "SIGTERM: stopping and saving" in text["stop"]
    (saved,) = re.findall(r"stopped and saved at step (\d+)", text["stop"])
    assert "exit code 75;" in text["stop"]
    assert f"going on from step {saved} in" in text["resume"]
    for name in ("train_bert", "resume", "train_t5"):
        assert "step 30/30  held-out loss" in text[name]
    # Curves.
    assert "image/png" in kinds["curves"]
    assert len(re.findall(r"held-out loss \d\.\d\d after 30 steps, unigram", text["curves"])) == 3
    # In the hands of transformers.
    for name in ("bert_tiny", "gpt2_tiny", "t5_tiny"):
        files = {path.name for path in (folder / "lmjax_exports" / name).iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files
    for name in ("BertForMaskedLM", "GPT2LMHeadModel", "T5ForConditionalGeneration"):
        assert name in text["load"]
    assert text["scores"].count("nats per piece") == 6
    assert text["check"].count("lmjax -") == 6
    assert "transformers gives the same likelihoods" in text["check"]
    assert len(re.findall(r"____.*('.+' \d+%.*){5}", text["fill_mask"])) == 3
    for line in text["generate"].splitlines():
        assert re.match(r"- (In the beginning|The population of the island|It is a truth).", line)
    assert len(re.findall(r"-> <extra_id_0>", text["fill_spans"])) == 2
    assert not [name for name in text if "Traceback" in text[name]]
