"""Every mistake a user can make ends in one line of cause and fix, and no traceback."""

import os
import shutil
import subprocess
import sys
from unittest import mock

import jax
import pytest
import small_run
import tool_run
from small_run import CORPUS

from lmjax import runner
from lmjax.train.workdir import Workdir

SMALL = {
    "hidden_size=32, num_layers=2": "hidden_size=32, num_layers=1",
    "num_steps=24": "num_steps=2",
}


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    """Where good and bad things are, by name: a run, a store, configs, text."""
    root = tmp_path_factory.mktemp("mistakes")
    lines = CORPUS.read_text().splitlines(keepends=True)
    text = {
        "text.jsonl": "".join(lines[:12]).encode(),
        "other.jsonl": "".join(lines[60:64]).encode(),
        "empty.txt": b"",
        "latin.txt": "caf\xe9 ".encode("latin-1") * 100,
        "notjson.jsonl": b"hello\nworld\n",
        "nokey.jsonl": b'{"body": "hello"}\n',
        "torn.jsonl.gz": b"this is no gzip",
        "words.docx": b"PK",
        "one.txt": b"One document of a few words.",
        "wrong.jsonl": b'{"context": "a", "choices": ["b", "c"], "answer": 2}\n',
        "ids.jsonl": b'{"token_ids": [5, 70000]}\n',
        "syntax.py": b"def get_config(:\n",
        "nothing.py": b"x = 1\n",
        "wrong.py": b"def get_config():\n    return undefined\n",
        "config.yaml": b"family: gpt2\n",
    }
    for name, content in text.items():
        (root / name).write_bytes(content)
    for family in ("gpt2", "t5"):
        config = small_run.config(root / "text.jsonl", root / "cache", family)
        for old, new in SMALL.items():
            config = config.replace(old, new)
        (root / f"{family}.py").write_text(config)
    # As if a signal had come behind the first step: a checkpoint, and nothing was compiled for it.
    with mock.patch.object(runner.loop, "run", lambda state, *_, **__: (state, 1)):
        stopped = tool_run.run("main", f"--config={root}/gpt2.py", f"--workdir={root}/run")
    assert stopped.code == runner.PREEMPTED, stopped.err
    for name, source in (("store", "text"), ("other_store", "other")):
        tokenizer = f"{root}/run/tokenizer"
        if source == "other":
            tokenizer = f"{root}/tokenizer"
            flags = [f"--input={root}/other.jsonl", "--vocab_size=500", f"--output={tokenizer}"]
            assert tool_run.run("train_tokenizer", *flags).code == 0
        flags = [f"--tokenizer={tokenizer}", f"--output={root}/{name}"]
        assert tool_run.run("prepare_data", f"--input={root}/{source}.jsonl", *flags).code == 0
    damage(root)
    return root


def damage(root):
    """Copies of the run and of the store, each damaged in its own way."""
    for name in ("torn_run", "meta_run", "config_run"):
        shutil.copytree(root / "run", root / name)
    for file in (root / "torn_run/checkpoints/1/state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:50])
    shutil.rmtree(root / "meta_run/checkpoints/1/meta")
    (root / "config_run/config.json").write_text('{"format": ')
    for name in ("torn_store", "flipped_store", "unfinished_store"):
        shutil.copytree(root / "store", root / name)
    shard = root / "torn_store/train-00000.arrayrecord"
    shard.write_bytes(shard.read_bytes()[:-100])
    shard = root / "flipped_store/train-00000.arrayrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    (root / "unfinished_store/manifest.json").unlink()


NEW = "main --config={at}/gpt2.py --workdir={at}/new "
EVAL = "main --mode=eval --workdir={at}/"
REPLAY = "main --mode=replay --workdir={at}/"
SCORE = "score --output={at}/scores.jsonl --workdir={at}/run "
FILL = "fill_mask --workdir={at}/run "
EMBED = "embed --workdir={at}/run --input={at}/text.jsonl "
EVALUATE = "evaluate --workdir={at}/run --tasks={at}/"
GENERATE = "generate --workdir={at}/run "
LADDER = "plan --workdir={at}/plan --budget=2 --topology=cpu:2 --data={at}/text.jsonl"
PREPARE = "prepare_data --tokenizer={at}/run/tokenizer --input={at}/text.jsonl "

TEXT = "--config.data.path=bundled:corpus_small "
MIXED = "--config.data.sources=(('a','{at}/store'),('b','{at}/other_store'))"

# (command, words of the cause, words of the fix)
MISTAKES = [
    # what is written on the command line
    (NEW + "--confg=x", "Unknown command line flag 'confg'", "Did you mean: config"),
    (NEW + "stray", "unexpected argument 'stray'", "--name=value"),
    (NEW + "--mode=evaluate", "--mode=evaluate", "<train|eval|replay>"),
    (NEW + "--config.train.num_step=3", "unknown config field", "config.train.num_steps"),
    (NEW + "--config.train.num_steps", "has no value", "num_steps=VALUE"),
    (NEW + "--config.train.num_steps=many", "'many'", "--help_config"),
    (NEW + "--config.optimizer.learning_rate=-1", "greater than 0", "--help_config"),
    (NEW + "--config.model=small", "is a group of fields", "--config.model.preset=VALUE"),
    (NEW + "--config.family=gpt3", "'gpt3' is unknown", "did you mean gpt2"),
    (NEW + "--config.model.preset=smal", "'smal' is unknown", "did you mean small"),
    (NEW + "--config.objective.name=mllm", "'mllm'", "there are 'clm', "),
    ("main --config={at}/gpt2.py", "--workdir is missing", "--workdir=DIR"),
    ("main --workdir={at}/nowhere", "nothing to run", "--config=FILE"),
    (NEW + "--num_processes=2", "--num_processes and --process_id belong together", "all three"),
    (NEW + "--join_seconds=0", "--join_seconds=0", "a positive integer"),
    ("inspect_batches --config={at}/gpt2.py --steps=3", "no range", "--steps=A:B"),
    # config files
    ("main --workdir={at}/new --config={at}/nope.py", "is not there", "see configs/"),
    ("main --workdir={at}/new --config={at}", "is a folder", "see configs/"),
    ("main --workdir={at}/new --config={at}/config.yaml", "neither a Python file", "configs/"),
    ("main --workdir={at}/new --config={at}/syntax.py", "at line 1 with SyntaxError", "mend it"),
    ("main --workdir={at}/new --config={at}/wrong.py", "at line 2 with NameError", "mend it"),
    ("main --workdir={at}/new --config={at}/nothing.py", "has no get_config()", "must define"),
    # combinations that cannot be
    (NEW + "--config.objective.name=mlm", "'mlm' trains models of", "set objective.name to clm"),
    (NEW + "--config.data.seq_len=4096", "longer than model.max_positions", "shorten the rows"),
    (NEW + "--config.train.global_batch_size=7", "does not divide", "a multiple of 8"),
    (NEW + "--config.train.micro_batch_size=3", "does not divide", "choose a divisor"),
    (NEW + "--config.mesh.data=3", "takes 3 devices", "must come to 8"),
    (NEW + "--config.mesh.tensor=8", "does not divide by 8", "set config.mesh"),
    (NEW + "--config.model.vocab_size=128", "the embedding 128 rows", "enlarge it"),
    (NEW + "--config.train.init_from={at}/nowhere", "holds no run", "give the workdir"),
    # text
    (NEW + "--config.data.path={at}/nope.txt", "no such file", "check the path"),
    (NEW + "--config.data.path={at}/words.docx", "not a supported kind", "use .txt"),
    (NEW + "--config.data.path={at}/empty.txt", "no text", "give UTF-8 text"),
    (NEW + "--config.data.path={at}/latin.txt", "1 not UTF-8", "give UTF-8 text"),
    (NEW + "--config.data.path={at}/notjson.jsonl", "2 not JSON", "one JSON object per line"),
    (NEW + "--config.data.path={at}/nokey.jsonl", "no field 'text'; it has body", "set text_key"),
    (NEW + "--config.data.path={at}/torn.jsonl.gz", "cannot be read", "fetch or compress it again"),
    (NEW + "--config.data.path={at}/one.txt", "one document", "text_split=paragraph"),
    (NEW + "--config.data.eval_path={at}/text.jsonl", "what it trains on", "eval_path unset"),
    # mixtures
    (NEW + "--config.data.sources=('en','{at}/store')", "not pairs", "write (('en', 'PATH'),"),
    (NEW + TEXT + MIXED.replace("'b'", "'a'"), "calls two texts 'a'", "a name of its own"),
    (NEW + TEXT + MIXED.replace("'b'", "'b/c'"), "called 'b/c'", "use letters"),
    (NEW + MIXED, "data.path=", "leave data.path at its default"),
    (NEW + TEXT + MIXED + " --config.data.weights=(1,2,3)", "3 numbers", "one for each"),
    (NEW + TEXT + MIXED + " --config.data.weights=(1,-2)", "weights=-2", "greater than 0"),
    (NEW + "--config.data.temperature=2.0", "is for a mixture", "data.sources"),
    (NEW + TEXT + MIXED, "different tokenizers", "--tokenizer={at}/store/tokenizer"),
    (NEW + TEXT + MIXED.replace("other_store", "empty.txt"), "no documents", "check the input"),
    (EVAL + "run " + TEXT + MIXED, "started with (one text)", "another --workdir"),
    # tokenizers and stores
    (NEW + "--config.tokenizer.path={at}/nowhere", "not a tokenizer", "tools/train_tokenizer.py"),
    (
        NEW + "--config.data.path={at}/store --config.tokenizer.path={at}/tokenizer",
        "with another tokenizer",
        "leave tokenizer.path unset",
    ),
    (NEW + "--config.data.path={at}/torn_store", "bytes, not", "copy the store again"),
    (NEW + "--config.data.path={at}/unfinished_store", "unfinished", "tools/prepare_data.py"),
    (PREPARE + "--output={at}/flipped_store --verify", "SHA-256", "copy the store again"),
    (PREPARE + "--output=/dev/null/store", "cannot be written", "choose a folder"),
    # workdirs and checkpoints
    (NEW.replace("new ", "text.jsonl"), "cannot be written", "--workdir that you may write to"),
    ("main --config={at}/gpt2.py --workdir=/dev/null/run", "cannot be written", "--workdir that"),
    ("main --config={at}/t5.py --workdir={at}/run", "is not the same file", "another --workdir"),
    (EVAL + "run --config.optimizer.learning_rate=1", "started with 0.01", "leave it out"),
    (EVAL + "run --config.data.path={at}/other_store", "tokenizer_sha256", "put back"),
    (EVAL + "torn_run", "checkpoints/1 is damaged", "bring it back from a copy"),
    (EVAL + "meta_run", "checkpoints/1 is damaged", "bring it back from a copy"),
    (EVAL + "config_run", "is no run's config", "restore it"),
    (EVAL + "nowhere", "holds no run", "train one there first"),
    (REPLAY + "run", "--step is missing", "--step=N"),
    (REPLAY + "run --step=0", "--step=0 is no step", "take 1 to 1"),
    (REPLAY + "run --step=3", "beyond step 1, the last that is recorded", "take 1 to 1"),
    (REPLAY + "nowhere --step=1", "holds no run", "train one there first"),
    (EVAL + "run --step=1", "--step is for --mode=replay", "leave it out"),
    (SCORE + "--input={at}/text.jsonl --step=5", "no checkpoint of step 5", "there is 1: take one"),
    (SCORE + "--input={at}/ids.jsonl", "70000 is outside the vocabulary", "take the tokenizer"),
    (SCORE + "--input={at}/notjson.jsonl", "notjson.jsonl:1: not JSON", "one object per line"),
    # using a model
    (FILL + "--top_k=3", "nothing to fill", "either --text or --input"),
    (FILL + "--text=A<mask>", "a decoder, which fills no masks", "tools/generate.py"),
    (FILL + "--input={at}/text.jsonl", "--input has no --output", "give --output=FILE"),
    (EMBED + "--normalize", "nothing to do", "give --output=FILE.npz, or --query"),
    (EMBED + "--output={at}/v.csv", "of no known kind", ".npz or .parquet"),
    (EMBED + "--output={at}/text.jsonl", "is the input, too", "another output"),
    (EMBED + "--output={at}/v.npz --pooling=cls", "trained without one", "--pooling=mean"),
    (EMBED + "--query=a --pooling=tokens", "no vector of a line", "--pooling=mean"),
    (EMBED + "--output={at}/v.parquet --neighbours=1", "are for .npz", "name the output .npz"),
    (EMBED + "--output={at}/v.npz --text_key=body", "has no field body", "set --text_key"),
    (EVALUATE + "text.jsonl", "text.jsonl:1: has no field context", "context, choices and answer"),
    (EVALUATE + "notjson.jsonl", "notjson.jsonl:1: not JSON", "one object per line"),
    (EVALUATE + "empty.txt", "not JSON lines", "give .jsonl"),
    (EVALUATE + "wrong.jsonl", "answer is 2, and there are 2", "give an index from 0"),
    (
        "make_choices --input={at}/one.txt --output={at}/choices.jsonl",
        "no document has the 128 words",
        "lower --context_words",
    ),
    (
        "report --workdir={at} --output={at}/report.html",
        "holds no run",
        "train one there",
    ),
    (
        "report --workdir={at}/run --output={at}/report.html",
        "no rows in metrics.jsonl yet",
        "wait for the first",
    ),
    # devices that are not here
    ("plan --topology=v5e:4x4", "nothing to plan", "give --config=FILE and --topology"),
    ("plan --config={at}/gpt2.py --topology=v9:4x4", "v9:4x4 is not known", "write v5e:4x4"),
    (
        "plan --config={at}/gpt2.py --topology=h100:8 --config.mesh.fsdp=16",
        "takes 16 devices and there are fewer: 8",
        "must come to 8",
    ),
    (
        "plan --config={at}/gpt2.py --topology=v5p:4x4",
        "a v5p slice has 3 dims",
        "write for example v5p:4x4x4",
    ),
    (
        "plan --config={at}/gpt2.py --topology=h100:8 --ledger={at}/wrong.jsonl",
        "is no ledger of a curation",
        "name the ledger.json",
    ),
    # what to train on a text
    ("plan --data={at}/text.jsonl", "for a budget", "--budget=HOURS and --topology=h100:8"),
    (LADDER.replace("=2 ", "=0 "), "--budget=0 is no time", "give hours above 0"),
    (LADDER + " --task=dance", "--task=dance is not known", "there are generate, classify"),
    (LADDER + " --variants=gpt2", "--variants=gpt2 is not known", "there are encoder, decoder"),
    (LADDER + " --config={at}/gpt2.py", "two ways to plan", "leave one out"),
    (LADDER + " --bytes_per_token=3", "two ways to plan", "leave one out"),
    (LADDER + " --output={at}/plan.json", "is no page", "name it FILE.html"),
    (LADDER, " MB to train on", "get more text, or go on from a published model"),
    (LADDER.replace("text.jsonl", "store"), "a prepared store", "give the raw text"),
    (LADDER.replace("text.jsonl", "nope"), "no such file", "check the path"),
    ("plan --budget=2 --config={at}/gpt2.py", "--budget is for a ladder", "give --data=TEXT"),
    ("bench --what=curate", "--input and --what=curate go together", "give both or none"),
    # text to be written
    (GENERATE + "--seed=1", "--prompt and --input are missing", "give --prompt=TEXT"),
    (GENERATE + "--prompt=a --input=b", "--prompt and --input are both given", "give --prompt"),
    (GENERATE + "--input={at}/text.jsonl", "--output is missing", "give --output=FILE.jsonl"),
    (GENERATE + "--prompt=a --temperature=-1", "temperature=-1.0 is impossible", "give 0"),
    (GENERATE + "--prompt=a --temperature=1 --top_p=0", "top_p=0.0 is no", "give 0 < top_p <= 1"),
    (GENERATE + "--prompt=a --temperature=1 --top_k=0", "top_k=0 leaves no", "give 1 or more"),
    (GENERATE + "--prompt=a --top_k=5", "at temperature 0 nothing is", "temperature above 0"),
    (GENERATE + "--prompt=a --num_samples=2", "temperature 0 are all alike", "--temperature=1"),
    (
        GENERATE + "--input={at}/text.jsonl --output={at}/out.jsonl",
        "text.jsonl:1: has no field prompt",
        "a line has prompt",
    ),
    # other machines, and this one
    ("main --config={at}/gpt2.py --workdir=gs://bucket/run", "gcsfs", "pip install 'lmjax[gcs]'"),
    (NEW + "--config.data.path=s3://bucket/a.jsonl", "s3fs", "pip install 'lmjax[s3]'"),
    ("export_hf --workdir={at}/run --push_to_hub=me/model", "needs a token", "hf auth login"),
    ("export_hf --workdir={at}/run --push_to_hub=model", "no name of a repository", "OWNER/NAME"),
    ("export_hf --workdir={at}/run --output={at}/store", "holds something", "another output"),
    ("import_hf --input={at}/run --output={at}/imported", "a run of lmjax", "give it as --workdir"),
    ("inspect_batches --config={at}/gpt2.py --output=/dev/full", "disk is full", "free some space"),
]


def explained(done, cause, fix):
    """Asserts that a command failed with one line of cause and fix."""
    assert done.code == 1, done
    assert "Traceback" not in done.out + done.err
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert cause in last
    assert fix in last[last.index(cause) + len(cause) :], last


@pytest.mark.parametrize(("command", "cause", "fix"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_a_mistake_explains_itself(at, command, cause, fix, monkeypatch):
    if "/dev/full" in command and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    for module in ("gcsfs", "s3fs"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("HF_TOKEN_PATH", str(at / "no_token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(at / "no_token"))
    explained(tool_run.run(*command.format(at=at).split(" ")), cause, fix.format(at=at))


def test_raw_text_for_several_hosts(at, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    done = tool_run.run("main", f"--config={at}/gpt2.py", f"--workdir={at}/new")
    explained(done, "is raw text, and this run has 2 hosts", "tools/prepare_data.py")


def test_a_workdir_in_use(at):
    folder = Workdir(at / "run")
    done = tool_run.run("main", f"--workdir={at}/run")
    folder.close()
    explained(done, "in use by another process", "wait for it to end")


def failing(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "cause", "fix"),
    [
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
            "the device has too little memory (RESOURCE_EXHAUSTED: Out of memory",
            "config.train.micro_batch_size",
        ),
        (MemoryError(), "this machine has too little memory", "smaller model"),
        (OSError(28, "No space left on device", "/a/b"), "/a/b: the disk is full", "free some"),
        (
            ValueError('UNKNOWN: writing "/a/b": No space left on device [os_error_code=28]'),
            "/a/b: the disk is full",
            "free some space",
        ),
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: permission denied", "choose"),
        (ModuleNotFoundError(name="gcsfs"), "package gcsfs is missing", "'lmjax[gcs]'"),
    ],
)
def test_exceptions_of_others(at, error, cause, fix, monkeypatch):
    monkeypatch.setattr(runner, "train", failing(error))
    explained(tool_run.run("main", f"--workdir={at}/run"), cause, fix)


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_interrupt(at, monkeypatch, wrapped):
    error = ImportError("while initializing") if wrapped else KeyboardInterrupt()
    error.__cause__ = KeyboardInterrupt() if wrapped else None
    monkeypatch.setattr(runner, "train", failing(error))
    done = tool_run.run("main", f"--workdir={at}/run")
    assert done.code == 130
    assert done.err == "error: interrupted; run the same command again\n"


def test_the_traceback_of_a_defect_goes_to_a_file(at, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(runner, "train", failing(ZeroDivisionError("one\ntwo")))
    done = tool_run.run("main", f"--workdir={at}/run")
    (file,) = tmp_path.iterdir()
    explained(done, "ZeroDivisionError: one (a defect", str(file))
    explained(done, str(file), "--debug")
    assert "Traceback (most recent call last)" in file.read_text()


def test_the_log_of_a_run_takes_the_traceback(at, monkeypatch):
    monkeypatch.setattr(runner, "evaluation_row", failing(ZeroDivisionError("one")))
    shutil.copytree(at / "run", at / "failing", dirs_exist_ok=True)
    done = tool_run.run("main", f"--workdir={at}/failing", "--mode=eval")
    explained(done, "ZeroDivisionError: one", f"{at}/failing/lmjax.log")
    log = (at / "failing/lmjax.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert log.rstrip().endswith("ZeroDivisionError: one")


@pytest.mark.parametrize("tool", ["main", "inspect_batches"])
def test_debug_prints_the_traceback_of_a_mistake(at, tool):
    done = tool_run.run(tool, f"--config={at}/nope.py", f"--workdir={at}/new", "--debug")
    assert done.code == 1
    assert done.err.startswith("Traceback (most recent call last)")
    assert done.err.splitlines()[-1].startswith("error: config file")


def test_a_process_without_the_devices_it_asks_for(at):
    command = [sys.executable, "-m", "lmjax.main", f"--config={at}/gpt2.py", "--dry_run"]
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    explained(
        tool_run.Done(done.returncode, done.stdout, done.stderr),
        "JAX cannot start its devices (JAX_PLATFORMS='cuda'",
        "unset JAX_PLATFORMS",
    )
