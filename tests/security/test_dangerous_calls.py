"""No code path here runs what a file holds: read off the syntax trees of all that is shipped."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for room in ("lmjax", "tools", "configs") for p in (ROOT / room).rglob("*.py"))

# What turns bytes into objects of any class, or into code.
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal"}
MODULES |= {"code", "codeop", "runpy", "shelve", "yaml"}
BUILTINS = {"__import__", "compile", "eval", "exec"}
CALLS = {"torch.load", "torch.hub.load", "os.system", "os.popen", "tempfile.mktemp"}
CALLS |= {"pd.read_pickle", "pandas.read_pickle", "numpy.fromregex", "shutil.unpack_archive"}
METHODS = {"extractall", "read_pickle", "unsafe_load"}  # of whatever
PERMISSIONS = {"allow_pickle", "trust_remote_code", "shell"}  # arguments that may only say no

# Each with its reason; the test fails for one that is not needed any more.
ALLOWED = {
    # A config is a Python program that the user names on the command line and so runs; a workdir
    # or a store of others never brings one along, as config.json rules a run that is there.
    ("lmjax/config_file.py", "exec"),
    ("lmjax/config_file.py", "compile"),
}


def dotted(node):
    """ "a.b.c" of an expression of names; else None."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return None


def found_in(source):
    """What is dangerous in a piece of source, by name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            yield from (root for name in names if (root := name.split(".")[0]) in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func) or ""
        if name in BUILTINS or name in CALLS:
            yield name
        if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            yield node.func.attr
        said = {k.arg: getattr(k.value, "value", ...) for k in node.keywords}
        yield from (f"{name} {k}" for k in PERMISSIONS if said.get(k, False) is not False)
        if name in ("np.load", "numpy.load") and said.get("allow_pickle") is not False:
            yield name


def test_nothing_unpickles_or_runs_what_a_file_holds():
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in SOURCES
        for name in found_in(path.read_text(encoding="utf-8"))
    }
    assert len(SOURCES) > 100
    assert found == ALLOWED


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import pickle", "pickle"),
        ("def f():\n    from joblib import load", "joblib"),
        ("import yaml.reader as r", "yaml"),
        ("x = np.load(file)", "np.load"),
        ("x = numpy.load(file, mmap_mode='r', allow_pickle=maybe)", "numpy.load"),
        ("torch.load(f, weights_only=True)", "torch.load"),
        ("AutoModel.from_pretrained(n, trust_remote_code=True)", "trust_remote_code"),
        ("read(f, allow_pickle=not safe)", "allow_pickle"),
        ("subprocess.run(line, shell=True)", "shell"),
        ("eval(text)", "eval"),
        ("zipfile.ZipFile(f).extractall(d)", "extractall"),
        ("__import__('pickle')", "__import__"),
    ],
)
def test_what_it_sees(source, name):
    assert any(name in found for found in found_in(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "np.load(f, allow_pickle=False)",
        "re.compile(x)",
        "json.loads(x)",
        "ast.literal_eval(x)",
        "f(trust_remote_code=False)",
    ],
)
def test_what_it_leaves_alone(source):
    assert list(found_in(source)) == []
